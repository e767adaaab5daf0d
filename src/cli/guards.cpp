// sluice breakers and sluice rules: what guards the calls of a running server, and what an operator
// may do to it.
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

#include "cli/client.hpp"
#include "cli/commands.hpp"
#include "server/guard_rules.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/resilience/rule.hpp"

namespace sluice::cli {
namespace {

using Json = nlohmann::ordered_json;

struct GuardOptions : ServerOptions {
  std::string name, app, state, reason, file;
  bool shadow = false;
  int interval_ms = 1000;
  int count = 0;  // looks of `watch`; 0: until Ctrl-C
};

std::string shown(const Json& one) {
  return one.value("name", "") + (one.value("shadow", false) ? " (shadow)" : "");
}

// An order may stand for every app.
std::string app_of(const Json& one) {
  const std::string app = one.value("app", "");
  return app == "*" ? "(every)" : app;
}

std::uint64_t number(const Json& of, const char* name) { return of.value(name, std::uint64_t{0}); }

std::string ago(double ms) {
  if (ms < 1000) return fmt::format("{:.0f} ms ago", ms);
  if (ms < 120'000) return fmt::format("{:.1f} s ago", ms / 1000);
  return fmt::format("{:.0f} min ago", ms / 60'000);
}

std::string change(const Json& t) {
  std::string line = fmt::format("{} -> {}: {}", t.value("from", ""), t.value("to", ""), t.value("reason", ""));
  if (!t.contains("threshold")) return line;
  const double observed = t.value("observed", 0.0), threshold = t.value("threshold", 0.0);
  if (t.value("reason", "").starts_with("trials"))
    return line + fmt::format(" ({:.0f} bad, {:.0f} open it again)", observed, threshold);
  return line + fmt::format(" {:.2f} (threshold {:.2f})", observed, threshold);
}

Json who(const GuardOptions& options, Json payload = Json::object()) {
  payload["name"] = options.name;
  payload["shadow"] = options.shadow;
  if (!options.app.empty()) payload["app"] = options.app;
  return payload;
}

HttpAnswer asked(const GuardOptions& options, const char* command, const Json& payload = Json::object()) {
  HttpAnswer answer = run_command(options, command, payload);
  if (!answer.ok()) refuse(options, answer);
  return answer;
}

void list(const GuardOptions& options) {
  const HttpAnswer answer = asked(options, "sluice.breakers.list");
  if (options.json) return fmt::print("{}\n", answer.body);
  const Json rows = answer.json.value("protectors", Json::array());
  if (rows.empty())
    return fmt::print("Nothing has called outside yet: a protector is made by the first call of its command.\n");
  fmt::print("{:<44} {:<12} {:<13} {:>10} {:>10} {:>12}  {}\n", "COMMAND", "APP", "BREAKER", "PASSED", "REFUSED", "IN WINDOW", "RULE");
  for (const auto& row : rows)
    fmt::print("{:<44} {:<12} {:<13} {:>10} {:>10} {:>12}  {}\n", shown(row), app_of(row), row.value("state", ""), number(row, "passed"),
               number(row, "blocked"),
               fmt::format("{}/{} bad", number(row, "failures"), number(row, "calls")),
               row.value("rule", "").empty() ? "(none: passes)" : row.value("rule", ""));
}

// "5 failed: 0.42 of the 0.50 that open it".
void show_share(const Json& window, const char* counted, const char* word, const char* ratio) {
  const double trips = window.at("trips_at").value(ratio, 0.0);
  fmt::print("          {} {}: {:.2f}{}\n", number(window, counted), word, window.value(ratio, 0.0),
             trips > 0 ? fmt::format(" of the {:.2f} that open it", trips) : std::string(", which opens nothing"));
}

void show_window(const Json& window) {
  const std::string last = window.contains("last_ms") ? fmt::format("last {:.0f} ms", window.value("last_ms", 0.0))
                                                      : fmt::format("last {} calls", number(window, "last_calls"));
  fmt::print("window    {} calls in the {}; judged from {} on\n", number(window, "calls"), last, number(window, "minimum_calls"));
  show_share(window, "failures", "failed", "failure_ratio");
  show_share(window, "slow", fmt::format("slow, {:.0f} ms or more", window.value("slow_after_ms", 0.0)).c_str(), "slow_ratio");
  const Json& trips = window.at("trips_at");
  if (number(trips, "failures") != 0) fmt::print("          {} failures open it\n", number(trips, "failures"));
  if (number(trips, "consecutive") != 0)
    fmt::print("          {} failed one after another, of the {} that open it\n", number(window, "consecutive"), number(trips, "consecutive"));
}

bool has_policy(const Json& one, std::string_view name) {
  const auto policies = one.find("policies");
  return policies != one.end() && std::ranges::any_of(*policies, [&](const Json& policy) { return policy.value("policy", "") == name; });
}

// A breaker goes to trials when somebody calls, so one that nobody calls stays open past its time.
void show_isolation(const Json& one) {
  const double ms = one.value("opens_for_ms", 0.0);
  fmt::print("          {}\n", ms > 0 ? fmt::format("tries again in {:.0f} ms", std::ceil(ms)) : std::string("the next call tries"));
}

void show_repeats(const Json& one) {
  const double left = one.value("retry_budget", 0.0), spent_at = one.value("retry_spent_at", 0.0);
  fmt::print("repeated  {} retries, {} hedges; {:.1f} tokens left{}\n", number(one, "retries"), number(one, "hedges"), left,
             left > spent_at ? fmt::format(", at {:.1f} nothing more is repeated", spent_at)
                             : fmt::format(": nothing is repeated until successes bring them above {:.1f}", spent_at));
}

void show(const GuardOptions& options) {
  const HttpAnswer answer = asked(options, "sluice.breakers.show", who(options));
  if (options.json) return fmt::print("{}\n", answer.body);
  const Json& one = answer.json;
  fmt::print("command   {}\napp       {}\nrule      {} (rules version {})\nbreaker   {}\n", shown(one), app_of(one), one.value("rule", ""),
             number(one, "version"), one.value("state", ""));
  if (one.contains("opens_for_ms")) show_isolation(one);
  if (const auto trials = one.find("trials"); trials != one.end())
    fmt::print("          trials: {} running, {} good, {} bad, of {}\n", number(*trials, "running"), number(*trials, "passed"),
               number(*trials, "failed"), number(*trials, "all"));
  if (const auto window = one.find("window"); window != one.end()) show_window(*window);
  fmt::print("passed    {}\nrefused   {}\n", number(one, "passed"), number(one, "blocked"));
  for (const auto& policy : one.value("policies", Json::array()))
    fmt::print("policy    {:<10} {:<8} refused {}, would have refused {}\n", policy.value("policy", ""),
               policy.value("mode", ""), number(policy, "blocked"), number(policy, "would_block"));
  for (const char* name : {"bulkhead", "adaptive"})
    if (one.contains(name))
      fmt::print("{:<9} {} of {} in flight, {} waiting\n", name, number(one[name], "in_flight"),
                 number(one[name], "limit"), number(one[name], "waiting"));
  if (one.contains("tokens")) fmt::print("tokens    {}\n", number(one, "tokens"));
  if (number(one, "retries") != 0 || number(one, "hedges") != 0 || has_policy(one, "retry") || has_policy(one, "hedge"))
    show_repeats(one);
  for (const auto& t : one.value("transitions", Json::array()))
    fmt::print("history   {:<14} {}\n", ago(t.value("ago_ms", 0.0)), change(t));
}

void force(const GuardOptions& options) {
  const HttpAnswer answer = asked(options, "sluice.breakers.force",
                                  who(options, {{"state", options.state}, {"reason", options.reason}}));
  if (options.json) return fmt::print("{}\n", answer.body);
  fmt::print("The breaker of {}{} is {} now; who did it and why is in the audit trail.\n", options.name,
             options.app.empty() ? "" : " of app " + options.app, options.state);
  if (!answer.json.value("called", true)) {
    if (const auto callers = answer.json.find("callers"); callers != answer.json.end())
      fmt::print("App {} has not called it yet: it holds from its first call on. Called by: {}.", options.app,
                 fmt::join(callers->get<std::vector<std::string>>(), ", "));
    else
      fmt::print("Nothing of that name has been called yet: it holds from the first call on.");
    if (answer.json.contains("nearest")) fmt::print(" Is {} meant?", answer.json.value("nearest", ""));
    fmt::print("\n");
  }
  if (options.state.starts_with("forced"))
    fmt::print("It stays so until told otherwise, or until the server restarts: sluice breakers force {} closed{}{} --reason \"...\"\n", options.name,
               options.app.empty() ? "" : " --app " + options.app, options.shadow ? " --shadow" : "");
}

double in_ms(Duration d) { return std::chrono::duration<double, std::milli>(d).count(); }

// The server's changes from look to look. A server that is away, or was and counts from the start
// again, is looked at until it is there.
class Watcher {
 public:
  explicit Watcher(const GuardOptions& options) : options_(options) {}

  void look() {
    const bool first = looked_at_ == Instant{};
    const double away_ms = in_ms(clock_.now() - looked_at_);  // a server that was there all the time counts for longer
    HttpAnswer answer;
    try {
      answer = http_post(options_, "/v1/commands/sluice.breakers.list", "{}", {.effects = false, .silent = !first});
    } catch (const CLI::RuntimeError&) {
      if (first) throw;
      return gone();
    }
    if (!answer.ok() && (first || answer.status < 500)) refuse(options_, answer);
    if (!answer.ok()) return gone();
    const double counting = answer.json.value("counting_for_ms", 1e300);
    const bool was_gone = std::exchange(gone_, false);
    if (was_gone) fmt::print(stderr, "{} answers again\n", options_.server);
    // One that was away for less than the time between two looks.
    const bool another = !first && (counting < counting_ || counting < away_ms);
    if (another && !was_gone) fmt::print(stderr, "{} was started again\n", options_.server);
    std::map<std::string, Json> before;
    if (another || was_gone) {
      seen_.clear();
      before = std::exchange(ordered_, {});
    }
    counting_ = counting;
    // What is older than the last look is known, or happened before the first.
    const double since = first ? -1 : in_ms(clock_.now() - looked_at_);
    looked_at_ = clock_.now();
    for (const auto& row : answer.json.value("protectors", Json::array()))
      if (options_.name.empty() || row.value("name", "") == options_.name) look_at(row, since);
    for (const auto& [which, row] : before)
      if (!ordered_.contains(which)) tell_forgotten(row);
    std::fflush(stdout);
  }

 private:
  void gone() {
    if (!std::exchange(gone_, true)) fmt::print(stderr, "no answer from {}; still watching\n", options_.server);
  }
  void look_at(const Json& row, double since) {
    const std::string which = app_of(row) + ' ' + shown(row);
    const bool known = seen_.contains(which);
    const std::string state = row.value("state", "");
    if (state.starts_with("forced") || state == "disabled" || state == "metrics_only")
      ordered_[which] = row;
    else
      ordered_.erase(which);
    auto& generation = seen_[which];
    for (const auto& t : row.value("transitions", Json::array())) {
      if (t.value("generation", std::uint64_t{0}) <= generation) continue;
      generation = t.value("generation", std::uint64_t{0});
      const double before = t.value("ago_ms", 0.0);
      if (known || before <= since) tell(row, t, clock_.wall() - milliseconds(std::llround(before)));
    }
  }
  void tell_forgotten(const Json& row) {
    tell(row, {{"from", row.value("state", "")}, {"to", "closed"}, {"reason", "the order was forgotten: the server was started again"}},
         clock_.wall());
  }
  void tell(const Json& row, const Json& t, WallTime at) const {
    if (options_.json) {
      Json line = t;
      line["at"] = fmt::format("{:%FT%TZ}", at);
      line["name"] = row.value("name", "");
      line["app"] = row.value("app", "");
      line["shadow"] = row.value("shadow", false);
      return fmt::print("{}\n", line.dump());
    }
    fmt::print("{:%F %T}Z  {:<44} {:<12} {}\n", at, shown(row), app_of(row), change(t));
  }

  const GuardOptions& options_;
  RealClock clock_;
  std::map<std::string, std::uint64_t> seen_;  // the last change told, by protector
  std::map<std::string, Json> ordered_;        // those whose state is somebody's order
  Instant looked_at_{};
  double counting_ = 0;  // for how long the server did, at the last look
  bool gone_ = false;
};

void watch(const GuardOptions& options) {
  Watcher watcher(options);
  Parker pause;
  for (int look = 0; options.count == 0 || look < options.count; ++look) {
    if (look != 0) pause.park(milliseconds(options.interval_ms));
    watcher.look();
  }
}

Result<std::string> read_pipe(const std::string& path) {
  std::ifstream pipe(path, std::ios::binary);
  std::string text(server::kRuleBytesMax + 1, '\0');
  pipe.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(pipe.gcount()));
  if (text.size() > server::kRuleBytesMax)
    return fail(FailureKind::invalid_argument, server::kRulesFile,
                fmt::format("reading {}: expected at most {} bytes, got more", path, server::kRuleBytesMax));
  return text;
}

// As the server reads its own; what comes out of a pipe has to be read to know its size.
std::string read_rules(const std::string& path) {
  std::error_code none;
  Result<std::string> text = std::filesystem::is_fifo(path, none) ? read_pipe(path) : server::read_rules_file(path);
  // To the caller it is an argument that is wrong, also where there is no such file.
  if (!text) die(Failure(FailureKind::invalid_argument, text.error().code(), std::string(text.error().detail())));
  return *std::move(text);
}

void check(const GuardOptions& options) {
  const std::string text = read_rules(options.file);
  // As the server says of it: it would keep the old rules.
  if (text.empty())
    die(Failure(FailureKind::invalid_argument, "rules_file_empty",
                options.file + " is empty, as a file is that is just being written; for no rules leave a comment in it"));
  const auto rules = resilience::parse_rules(text, options.file);
  if (!rules) die(rules.error());
  if (rules->rules.empty()) return fmt::print("{}: no rules: nothing would be guarded.\n", options.file);
  fmt::print("{}: {} rule{}, all good.\n", options.file, rules->rules.size(), rules->rules.size() == 1 ? "" : "s");
}

void change_rules(const GuardOptions& options, const char* command, const char* done) {
  Json payload = Json::object();
  if (!options.file.empty()) {
    payload["rules"] = read_rules(options.file);
    // The server would say the same of most files; what is no text at all does not get there.
    if (const auto rules = resilience::parse_rules(payload["rules"].get<std::string>(), options.file); !rules)
      die(rules.error());
  }
  const HttpAnswer answer = asked(options, command, payload);
  if (options.json) return fmt::print("{}\n", answer.body);
  fmt::print("{}{}{}\n", answer.json.value("text", ""), answer.json.value("text", "").ends_with('\n') ? "" : "\n", done);
}
void diff(const GuardOptions& options) { change_rules(options, "sluice.rules.diff", "Nothing was changed."); }
void reload(const GuardOptions& options) {
  change_rules(options, "sluice.rules.reload",
               options.file.empty() ? "The file's rules are in force." : "These rules are in force until the server's "
                                                                          "rules file changes or it starts again.");
}

using Run = void (*)(const GuardOptions&);
CLI::App* add(CLI::App& group, const std::shared_ptr<GuardOptions>& options, const char* name, const char* what, Run run,
              bool online = true) {
  auto* command = group.add_subcommand(name, what);
  if (online) add_server_options(*command, *options);
  command->callback([options, run] { run(*options); });
  return command;
}

}  // namespace

void add_guards(CLI::App& app) {
  auto options = std::make_shared<GuardOptions>();
  auto* breakers = app.add_subcommand("breakers", "What guards the calls of a running server: list, show, force, watch");
  breakers->require_subcommand(1);
  breakers->footer("Example: sluice breakers list");
  add(*breakers, options, "list", "Every protector with its breaker's state", list)->footer("Example: sluice breakers list --json");
  auto* showing = add(*breakers, options, "show", "One protector: policies, window, permits, last changes", show);
  showing->add_option("name", options->name, "The outbound command")->required();
  showing->add_option("--app", options->app, "Of this app; needed where several call it");
  showing->add_flag("--shadow", options->shadow, "Of shadow traffic");
  showing->footer("Example: sluice breakers show voucher.code.batch_get_code_using_cache.SG");
  auto* forcing = add(*breakers, options, "force", "Puts a breaker into a state", force);
  forcing->add_option("name", options->name, "The outbound command")->required();
  forcing->add_option("state", options->state, "closed, half_open, forced_open, forced_closed, disabled or metrics_only")
      ->required()
      ->check(CLI::IsMember({"closed", "half_open", "forced_open", "forced_closed", "disabled", "metrics_only"}));
  forcing->add_option("--reason", options->reason, "Kept in the audit trail, with who did it")->required();
  forcing->add_option("--app", options->app, "Of this app alone; default: every app, also those that call it later");
  forcing->add_flag("--shadow", options->shadow, "Of shadow traffic");
  forcing->footer("Names are those of `sluice breakers list`; also one that was not called yet, if a rule gives it a breaker.\n"
                  "Example: sluice breakers force voucher.code.batch_get_code_using_cache.SG forced_open --reason \"maintenance until 14:00\"");
  auto* watching = add(*breakers, options, "watch", "A line for each change, also over a restart of the server, until Ctrl-C", watch);
  watching->add_option("name", options->name, "One outbound command; default: all");
  watching->add_option("--interval-ms", options->interval_ms, "Between two looks")->check(CLI::Range(10, 600'000))->capture_default_str();
  watching->add_option("--count", options->count, "Looks; 0: until Ctrl-C")->capture_default_str();
  watching->footer("Example: sluice breakers watch --json");

  auto* rules = app.add_subcommand("rules", "The rules of outbound calls: check, diff, reload");
  rules->require_subcommand(1);
  rules->footer("Example: sluice rules check rules.toml && sluice rules diff rules.toml");
  auto* checking = add(*rules, options, "check", "Says what is wrong in a file; asks no server", check, false);
  checking->add_option("file", options->file, "TOML")->required();
  checking->footer("Example: sluice rules check rules.toml");
  auto* comparing = add(*rules, options, "diff", "What a reload would change, without doing it", diff);
  comparing->add_option("file", options->file, "TOML; default: the server's own file as it is now");
  comparing->footer("Example: sluice rules diff rules.toml");
  auto* loading = add(*rules, options, "reload", "Puts rules into force, keeping all state that fits them", reload);
  loading->add_option("file", options->file, "TOML; default: the server's own file");
  loading->footer("Example: sluice rules reload");
}

}  // namespace sluice::cli
