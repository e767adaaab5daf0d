#include "server/guard_rules.hpp"

#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "sluice/base/text.hpp"

namespace sluice::server {

namespace {
constexpr std::string_view kAtStart = "start";
}  // namespace

Result<std::string> read_rules_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file)
    return fail(FailureKind::not_found, kRulesFile, "reading " + path + ": there is no such file, or it may not be read");
  std::error_code none;
  if (!std::filesystem::is_regular_file(path, none))
    return fail(FailureKind::invalid_argument, kRulesFile, "reading " + path + ": expected a file of rules, it is none");
  if (const auto size = std::filesystem::file_size(path, none); size > kRuleBytesMax)
    return fail(FailureKind::invalid_argument, kRulesFile,
                "reading " + path + ": expected at most " + std::to_string(kRuleBytesMax) + " bytes, got " +
                    std::to_string(size));
  return std::string{std::istreambuf_iterator<char>(file), {}};
}

GuardRules::GuardRules(resilience::Guards& guards, std::string path, Logger& logger)
    : guards_(guards), path_(std::move(path)), logger_(logger) {}

GuardRules::Stamp GuardRules::stamp() const noexcept {
  struct stat found {};
  if (::stat(path_.c_str(), &found) != 0) return {};
  const auto ns = [](const timespec& t) { return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; };
  return {found.st_ino, static_cast<std::uintmax_t>(found.st_size), ns(found.st_mtim), ns(found.st_ctim)};
}

Result<resilience::RuleSet> GuardRules::read(const std::optional<std::string>& text) const {
  if (text) return resilience::parse_rules(*text, "(request)");
  if (path_.empty())
    return fail(FailureKind::invalid_argument, "no_rules_file",
                "no rules were given and the configuration names no guards.rules file to read them from");
  const auto content = read_rules_file(path_);
  if (content) return resilience::parse_rules(*content, path_);
  if (content.error().kind() != FailureKind::not_found) return fail(content.error());
  return fail(FailureKind::not_found, kRulesFile, std::string(content.error().detail()) + "; guards.rules names it");
}

Status GuardRules::load() {
  if (path_.empty()) return {};
  seen_ = stamp();
  SLUICE_TRY(reload(std::nullopt, kAtStart));
  return {};
}

Result<resilience::ReloadPlan> GuardRules::plan(const std::optional<std::string>& text) const {
  SLUICE_ASSIGN(const auto rules, read(text));
  return guards_.plan(rules);
}

Result<resilience::ReloadPlan> GuardRules::reload(const std::optional<std::string>& text, std::string_view by) {
  SLUICE_ASSIGN(auto rules, read(text));
  if (!text && by != kAtStart && stamp().size == 0)
    return fail(FailureKind::invalid_argument, "rules_file_empty",
                "reading " + path_ + ": it is empty, as a file is that is just being written; the old rules stay. For no "
                                     "rules leave a comment in it");
  return guards_.reload(std::move(rules), by);
}

void GuardRules::watch(Lane& lane, Duration every) {
  if (path_.empty()) return;
  lane_ = &lane;
  every_ = every;
  look();
}

void GuardRules::look() {
  if (const Stamp now = stamp(); now != seen_) {
    seen_ = now;
    if (now.inode != 0 && now.size == 0) {
      bad_ = true;
      logger_.warn("the rules file is empty, as one is that is just being written; the old rules stay. For no rules leave a comment in it",
                   {{"file", path_}});
      return again();
    }
    const auto done = reload(std::nullopt, "file change");
    const bool was_bad = std::exchange(bad_, !done);
    if (!done)
      logger_.error("the rules file has changed and is not good; the old rules stay",
                    {{"failure", done.error().to_string()}});
    else if (!done->empty())
      logger_.info("the rules file has changed",
                   {{"version", done->version}, {"closes", done->closes}, {"resets", done->resets}, {"lose_policies", done->loses},
                    {"name_nothing_called_yet", done->rules_unmet}});
    else if (was_bad)
      logger_.info("the rules file is good again and says what is in force", {{"file", path_}, {"version", done->version}});
  }
  again();
}

void GuardRules::again() {
  timer_.arm(*lane_, lane_->clock().now() + every_, [](void* self) noexcept { static_cast<GuardRules*>(self)->look(); },
             this);
}

resilience::GuardsOptions guard_options(const Config& config, Logger& logger, const std::unique_ptr<rpc::Registry>& registry) {
  resilience::GuardsOptions options;
  options.max_protectors = config.guard_max_protectors;
  if (config.guard_missing_shadow == "pass") options.missing_shadow = resilience::MissingShadow::pass;
  if (config.guard_missing_shadow == "deny") options.missing_shadow = resilience::MissingShadow::deny;
  if (config.guard_overflow == "pass") options.overflow = resilience::GuardOverflow::pass;
  if (config.guard_overflow == "deny") options.overflow = resilience::GuardOverflow::deny;
  options.on_transition = [&logger](const resilience::Protector& protector, const resilience::BreakerTransition& t) {
    logger.warn("a breaker changed", {{"command", protector.name()},
                                      {"app", protector.app()},
                                      {"shadow", protector.shadow()},
                                      {"from", to_string(t.from)},
                                      {"to", to_string(t.to)},
                                      {"reason", to_string(t.reason)}});
  };
  options.on_audit = [&registry](const resilience::GuardAudit& audit) {
    if (!registry) return;
    store::AuditRow row;
    row.ns = "sluice";
    row.principal = audit.by;
    row.command = "sluice.guards";
    row.outcome = audit.refused ? store::AuditOutcome::error : store::AuditOutcome::ok;
    row.detail = beginning_of(audit.what, 2000);
    registry->audit(std::move(row));
  };
  return options;
}

}  // namespace sluice::server
