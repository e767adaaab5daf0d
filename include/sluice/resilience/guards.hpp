// The protectors of a process, and the rules that govern them. A caller resolves its command once
// to a Protector and keeps the reference: reloads change what it does, never which one it is.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "sluice/resilience/protector.hpp"

namespace sluice::resilience {

/// What a command gets when max_protectors others have one.
enum class GuardOverflow : std::uint8_t {
  share,  ///< one protector named "(overflow)" for all of them, under the rule of "*"
  pass,   ///< no protection
  deny,   ///< every call is refused
};

/// What shadow traffic gets for which no shadow rule is given.
enum class MissingShadow : std::uint8_t {
  inherit,  ///< the live rule, with state of its own
  pass,
  deny,
};

/// Something an operator did.
struct GuardAudit {
  WallTime at;
  std::string by;
  std::string what;
  bool refused = false;  ///< tried, and nothing changed
};

struct GuardsOptions {
  std::size_t max_protectors = 10'000;  ///< live and shadow together
  GuardOverflow overflow = GuardOverflow::share;
  MissingShadow missing_shadow = MissingShadow::inherit;
  /// Each breaker's transitions, outside any lock. May ask this registry. Must not throw.
  Protector::Listener on_transition;
  /// Each entry of the audit trail, outside any lock. Must not throw.
  std::function<void(const GuardAudit&)> on_audit;
};
inline constexpr std::size_t kGuardAudits = 256;

/// What a reload does or would do.
struct ReloadPlan {
  std::uint32_t version = 0;  ///< of the rules after it
  std::size_t rules_added = 0, rules_removed = 0, rules_changed = 0;
  std::size_t rules_unmet = 0;  ///< of the new rules: no protector has asked for them yet; misspelt, perhaps
  std::size_t protectors_changed = 0;
  std::size_t closes = 0, resets = 0;
  std::string text;  ///< a line for each change, then the sum: "closes 2, resets 0"
  bool empty() const noexcept { return rules_added + rules_removed + rules_changed == 0; }
};

/// Thread-safe. Permits and references end before it does.
class Guards {
 public:
  /// `clock` (times of the audit trail and of reloads) and `random` must outlive this.
  Guards(Clock& clock, Random& random, GuardsOptions options = {});
  Guards(const Guards&) = delete;
  Guards& operator=(const Guards&) = delete;

  /// The protector of a command, live as long as this. Takes a lock: resolve once, not per call.
  Protector& find(std::string_view command, bool shadow = false);

  /// What reload() would do, without doing it.
  Result<ReloadPlan> plan(const RuleSet& rules) const;
  /// Replaces all rules. State stays where its policy does. Invalid rules fail invalid_argument and
  /// change nothing. The same rules again are no new version. Not from within a listener.
  Result<ReloadPlan> reload(RuleSet rules, std::string_view by = "configuration");

  /// In order of names, live before shadow.
  std::vector<ProtectorSnapshot> list() const;
  /// Fails not_found, also for a protector nobody has asked for yet.
  Result<ProtectorSnapshot> show(std::string_view name, bool shadow = false) const;
  /// Breaker::force by name, in the audit trail with who and why.
  Status force(std::string_view name, bool shadow, BreakerState state, std::string_view by,
               std::string_view why);
  /// Of what was called or has a rule of its own, the name that this one may be a slip of.
  std::optional<std::string> nearest(std::string_view name, bool shadow = false) const;
  /// The last kGuardAudits, oldest first.
  std::vector<GuardAudit> audits() const;

 private:
  struct Resolved {
    const Rule* rule = nullptr;
    std::optional<Policy> deny;
  };
  using Key = std::pair<std::string, bool>;
  Resolved resolve(const RuleIndex& index, const Protector& protector) const;
  Protector& add(Key key);
  Protector& overflow(bool shadow);
  ReloadPlan difference(const RuleIndex& next) const;
  Protector* known(std::string_view name, bool shadow) const;
  void audit(std::string_view by, std::string what, bool refused = false);

  Clock& clock_;
  Random& random_;
  const GuardsOptions options_;
  std::mutex reload_mutex_;  // taken before mutex_
  mutable std::mutex mutex_;
  std::unique_ptr<const RuleIndex> index_;  // replaced under both
  std::uint32_t version_ = 0;
  std::map<Key, std::unique_ptr<Protector>> protectors_;
  std::vector<GuardAudit> audits_;
};

}  // namespace sluice::resilience
