// The protectors of a process, and the rules that govern them. A caller resolves its command once
// to a Protector and keeps the reference: reloads change what it does, never which one it is. Rules
// are for commands; state, limits and budgets are each app's own, live and shadow apart.
#pragma once
#include <compare>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "sluice/base/namespace.hpp"
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
  std::size_t max_protectors = 10'000;  ///< of all apps, live and shadow together
  GuardOverflow overflow = GuardOverflow::share;
  MissingShadow missing_shadow = MissingShadow::inherit;
  /// Each breaker's transitions, outside any lock. May ask this registry. Must not throw.
  Protector::Listener on_transition;
  /// Each entry of the audit trail, outside any lock. Must not throw.
  std::function<void(const GuardAudit&)> on_audit;
};
inline constexpr std::size_t kGuardAudits = 256;
/// The app of an order for all of them, and of the overflow. No app has this name.
inline constexpr std::string_view kEveryApp = "*";

/// What a reload does or would do.
struct ReloadPlan {
  std::uint32_t version = 0;  ///< of the rules after it
  std::size_t rules_added = 0, rules_removed = 0, rules_changed = 0;
  std::size_t rules_unmet = 0;  ///< of the new rules: no protector has asked for them yet; misspelt, perhaps
  std::size_t protectors_changed = 0;
  std::size_t closes = 0, resets = 0;
  std::size_t loses = 0;  ///< commands whose rule becomes another, without a policy that they had
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

  /// The protector of a command for one namespace, live as long as this. Takes a lock: resolve once, not per
  /// call.
  Protector& find(std::string_view command, const Namespace& ns);
  /// Of who has no apps.
  Protector& find(std::string_view command, bool shadow = false) { return find(command, Namespace(Namespace().app(), shadow)); }

  /// What reload() would do, without doing it.
  Result<ReloadPlan> plan(const RuleSet& rules) const;
  /// Replaces all rules. State stays where its policy does. Invalid rules fail invalid_argument and
  /// change nothing. The same rules again are no new version. Not from within a listener.
  Result<ReloadPlan> reload(RuleSet rules, std::string_view by = "configuration");

  /// In order of names, then apps, live before shadow.
  std::vector<ProtectorSnapshot> list() const;
  /// Without an app: of the only one that called it. Fails not_found, also for a protector nobody has asked for
  /// yet, and invalid_argument (which_app) where several have.
  Result<ProtectorSnapshot> show(std::string_view name, bool shadow = false, std::string_view app = {}) const;
  /// Breaker::force by name, in the audit trail with who and why. Without an app: of each, also of those that call
  /// it for the first time later; these find the order under the app kEveryApp. A name with '*' is a rule's pattern
  /// and no call: invalid_argument (pattern_is_no_call), with the calls that it fits.
  Status force(std::string_view name, bool shadow, BreakerState state, std::string_view by,
               std::string_view why, std::string_view app = {});
  /// Whether find() was asked for it, by this app or, without one, by any.
  bool called(std::string_view name, bool shadow = false, std::string_view app = {}) const;
  /// Of what was called or has a rule of its own, the name that this one may be a slip of. Another region
  /// (".SG" for ".MY") is none.
  std::optional<std::string> nearest(std::string_view name, bool shadow = false) const;
  /// The last kGuardAudits, oldest first.
  std::vector<GuardAudit> audits() const;

 private:
  struct Resolved {
    const Rule* rule = nullptr;
    std::optional<Policy> deny;
  };
  struct Key {
    std::string name, app;
    bool shadow = false;
    auto operator<=>(const Key&) const = default;
  };
  struct Entry {
    std::unique_ptr<Protector> protector;
    bool called = false;  // by find(); else an order made it
  };
  Resolved resolve(const RuleIndex& index, const Protector& protector) const;
  Entry& add(Key key);
  Protector* added_for_order(Key key);
  std::vector<Protector*> ordered(std::string_view name, bool shadow, BreakerState state, std::string_view app);
  ReloadPlan difference(const RuleIndex& next) const;
  Protector* known(const Key& key) const;
  template <class Do>
  void each_app(std::string_view name, bool shadow, Do work) const;
  Failure no_call(std::string_view pattern, bool shadow) const;
  void audit(std::string_view by, std::string what, bool refused = false);

  Clock& clock_;
  Random& random_;
  const GuardsOptions options_;
  std::mutex reload_mutex_;  // taken before mutex_
  mutable std::mutex mutex_;
  std::unique_ptr<const RuleIndex> index_;  // replaced under both
  std::uint32_t version_ = 0;
  std::map<Key, Entry> protectors_;
  std::vector<GuardAudit> audits_;
};

}  // namespace sluice::resilience
