// Rules: what protects the calls of which commands. Read from TOML:
//
//   [guard."code.*".breaker]        # exact names win over the longest prefix, that over "*"
//   failure_ratio = 0.5
//   [guard."code.*".rate]
//   mode = "observe"                # enforce (default), observe or off
//   limit = 500
//   [shadow."code.issue".rate]      # for shadow traffic only
//   limit = 50
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sluice/resilience/adaptive_limit.hpp"
#include "sluice/resilience/breaker.hpp"
#include "sluice/resilience/call_options.hpp"
#include "sluice/resilience/hot_keys.hpp"
#include "sluice/resilience/throttle.hpp"
#include "sluice/resilience/warm_up.hpp"

namespace sluice::resilience {

template <class Options>
struct Ruled {
  Mode mode = Mode::enforce;
  Options options;
};

/// The policies for the commands that `pattern` names; those that are absent are off.
struct Rule {
  std::string pattern;     ///< a name, a prefix with a final '*', or "*"
  bool shadow = false;     ///< for shadow traffic
  std::uint32_t line = 0;  ///< where it begins in its file; 0: from elsewhere
  std::optional<Ruled<BreakerOptions>> breaker;
  std::optional<Ruled<ThrottleOptions>> throttle;
  std::optional<Ruled<RateOptions>> rate;
  std::optional<Ruled<WarmUpOptions>> warm_up;
  std::optional<Ruled<HotKeyOptions>> hot_keys;
  std::optional<Ruled<PacerOptions>> pacing;
  std::optional<Ruled<BulkheadOptions>> bulkhead;
  std::optional<Ruled<AdaptiveOptions>> adaptive;
  std::optional<Ruled<TimeoutOptions>> timeout;
  std::optional<Ruled<RetryOptions>> retry;
  std::optional<Ruled<HedgeOptions>> hedge;
};

struct RuleSet {
  std::vector<Rule> rules;
};

/// All or nothing: fails invalid_argument with each mistake in a line of its own: file, line, what
/// was expected and what was found. `file` is for messages only.
Result<RuleSet> parse_rules(std::string_view toml, std::string_view file);

/// Checks rules made in code as a file's would be.
Status check_rule(const Rule& rule);

/// Finds the rule of a command. Compiled once from a set, which it keeps.
class RuleIndex {
 public:
  explicit RuleIndex(RuleSet set = {});
  RuleIndex(const RuleIndex&) = delete;
  RuleIndex& operator=(const RuleIndex&) = delete;
  /// Exact name, then the longest prefix, then "*"; null: none.
  const Rule* find(std::string_view command, bool shadow) const noexcept;
  const RuleSet& set() const noexcept { return set_; }

 private:
  RuleSet set_;
  std::vector<const Rule*> exact_;     // in order of (shadow, pattern)
  std::vector<const Rule*> prefixes_;  // longest first
};

}  // namespace sluice::resilience
