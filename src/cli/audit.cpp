// sluice audit: who did what on a running server.
#include <fmt/format.h>

#include "cli/client.hpp"
#include "cli/commands.hpp"
#include "cli/json_text.hpp"

namespace sluice::cli {
namespace {

struct AuditOptions : ServerOptions {
  std::string principal, command, outcome;
  std::uint64_t before = 0;
  int limit = 20;
};

struct Found {
  Json rows = Json::array();
  Json before;  // null: there are no older ones
};

// One answer looks at so many rows only: asks on until the limit is met or the rows end.
Found look(const AuditOptions& options, Json payload) {
  Found found;
  while (true) {
    const HttpAnswer answer = run_command(options, "sluice.audit.list", payload);
    if (!answer.ok()) {
      if (payload.contains("before"))
        fmt::print(stderr, "The search ended at the row before {}; --before {} goes on.\n", payload["before"].dump(), payload["before"].dump());
      refuse(options, answer);
    }
    for (const auto& row : answer.json.value("rows", Json::array())) found.rows.push_back(row);
    found.before = answer.json.contains("before") ? answer.json["before"] : Json();
    const std::size_t limit = static_cast<std::size_t>(options.limit);
    if (found.before.is_null() || found.rows.size() >= limit || (payload.contains("before") && found.before == payload["before"]))
      return found;
    payload["before"] = found.before;
    payload["limit"] = limit - found.rows.size();
    fmt::print(stderr, "{} of {} rows found; looking at those before {}\n", found.rows.size(), limit, found.before.dump());
  }
}

void audit(const AuditOptions& options) {
  Json payload{{"limit", options.limit}};
  if (options.before != 0) payload["before"] = options.before;
  if (!options.principal.empty()) payload["principal"] = options.principal;
  if (!options.command.empty()) payload["command"] = options.command;
  if (!options.outcome.empty()) payload["outcome"] = options.outcome;
  const Found found = look(options, std::move(payload));
  const Json& rows = found.rows;
  if (options.json) {
    Json all{{"rows", rows}};
    if (!found.before.is_null()) all["before"] = found.before;
    return fmt::print("{}\n", all.dump());
  }
  if (rows.empty()) fmt::print("No such rows.\n");
  else
    fmt::print("{:<19} {:<16} {:<40} {:<8} {:<24} {}\n", "AT (UTC)", "PRINCIPAL", "COMMAND", "OUTCOME", "DETAIL", "TRANSACTION");
  for (const auto& row : rows)
    fmt::print("{:<19} {:<16} {:<40} {:<8} {:<24} {}\n", when(row, "at_ms"), text(row, "principal"), text(row, "command"),
               text(row, "outcome"), text(row, "detail"), text(row, "transaction"));
  if (!found.before.is_null()) fmt::print("More: --before {}\n", found.before.dump());
}

}  // namespace

void add_audit(CLI::App& app) {
  auto* command = app.add_subcommand("audit", "Who did what on a running server, newest first");
  auto options = std::make_shared<AuditOptions>();
  command->add_option("--principal", options->principal, "Only of this one: the name of its token");
  command->add_option("--command", options->command, "Only this command");
  command->add_option("--outcome", options->outcome, "Only ok, error, denied or replayed")
      ->check(CLI::IsMember({"ok", "error", "denied", "replayed"}));
  command->add_option("--before", options->before, "Older than the row of this sequence, as `More:` shows it")
      ->check(CLI::Validator(
          [](std::string& given) {
            const bool number = !given.empty() && given.size() < 19 && given.find_first_not_of("0123456789") == std::string::npos;
            return number ? std::string() : "expected the sequence of a row, a whole number as `sluice audit` shows it behind More:, got '" + given + "'";
          },
          "", "sequence"));
  command->add_option("--limit", options->limit, "How many")->check(CLI::Range(1, 1000))->capture_default_str();
  add_server_options(*command, *options);
  command->footer("Rows of reads and refusals are written with the next commit, a moment later.\n"
                  "Examples:\n  sluice audit --outcome denied\n  sluice audit --principal till-7 --limit 100 --json");
  command->callback([options] { audit(*options); });
}

}  // namespace sluice::cli
