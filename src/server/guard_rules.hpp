// The rules of outbound calls: read from a file at the start, again when the file changes or an
// operator says so, or replaced through the admin API. A mistake changes nothing.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "sluice/base/log.hpp"
#include "sluice/resilience/guards.hpp"
#include "sluice/rpc/registry.hpp"
#include "sluice/server/config.hpp"

namespace sluice::server {

/// The code of a failure that is about the file, not about what it says.
inline constexpr std::string_view kRulesFile = "rules_file";
inline constexpr std::size_t kRuleBytesMax = 4 << 20;

/// What the configuration says of protectors. Changes of breakers are logged, and what operators do is audited once there
/// is a registry. Logger and `registry` must outlive the guards.
resilience::GuardsOptions guard_options(const Config& config, Logger& logger, const std::unique_ptr<rpc::Registry>& registry);

/// What a file of rules says; not_found, or invalid_argument for what is no file or is too long.
Result<std::string> read_rules_file(const std::string& path);

/// Thread-safe but for watch() and its destruction, which belong to the lane's side.
class GuardRules {
 public:
  /// An empty path: no file, rules come through reload() only. All outlive this.
  GuardRules(resilience::Guards& guards, std::string path, Logger& logger);

  /// At the start. Fails as the file does: not_found, or invalid_argument with file, line and reason.
  Status load();
  /// What reload() would do. Without a text: with the file as it is now.
  Result<resilience::ReloadPlan> plan(const std::optional<std::string>& text) const;
  /// Replaces all rules, by those of the text or of the file. A text holds until the file changes or
  /// the server starts again.
  Result<resilience::ReloadPlan> reload(const std::optional<std::string>& text, std::string_view by);
  /// Looks at the file every so often, on the lane, and reloads it once it has changed. An empty file is
  /// one that is being written: the old rules stay, and that is told.
  void watch(Lane& lane, Duration every);
  const std::string& path() const noexcept { return path_; }

 private:
  // A tool may give another text the size and the time of the old one, but not its inode and time of change.
  struct Stamp {
    std::uintmax_t inode = 0, size = 0;
    std::int64_t written_ns = 0, changed_ns = 0;
    bool operator==(const Stamp&) const = default;
  };
  Stamp stamp() const noexcept;
  Result<resilience::RuleSet> read(const std::optional<std::string>& text) const;
  void look();
  void again();

  resilience::Guards& guards_;
  const std::string path_;
  Logger& logger_;
  bool bad_ = false;  // as it was read last by watch()
  Stamp seen_;  // of the file that was tried last; the lane's after the start
  Lane* lane_ = nullptr;
  Duration every_{};
  Timer timer_;
};

}  // namespace sluice::server
