// sluice tx and sluice idempotency: what became of transactions and keys, on a running server.
#include <fmt/format.h>

#include "cli/client.hpp"
#include "cli/commands.hpp"
#include "cli/json_text.hpp"
#include "sluice/base/ids.hpp"

namespace sluice::cli {
namespace {

struct TxOptions : ServerOptions {
  std::string state, before, id, outcome, reason, flow;
  int limit = 20;
  bool dot = false, mermaid = false;
};

void list(const TxOptions& options) {
  std::string target = "/v1/transactions?limit=" + std::to_string(options.limit);
  if (!options.state.empty()) target += "&state=" + options.state;
  if (!options.before.empty()) target += "&before=" + options.before;
  const HttpAnswer answer = http_get(options, target);
  if (!answer.ok()) refuse(options, answer);
  if (options.json) return fmt::print("{}\n", answer.body);
  const Json rows = answer.json.value("transactions", Json::array());
  if (rows.empty()) {
    fmt::print("No {}transactions.\n", options.state.empty() ? "" : options.state + " ");
    return;
  }
  fmt::print("{:<14} {:<19} {:<10} {:<40} {}\n", "TRANSACTION", "BEGAN (UTC)", "OUTCOME", "COMMAND", "CAUSE");
  for (const auto& row : rows)
    fmt::print("{:<14} {:<19} {:<10} {:<40} {}\n", text(row, "id"), when(row, "began_ms"), text(row, "outcome"),
               text(row, "command").empty() ? text(row, "flow") : text(row, "command"), text(row, "cause"));
  if (rows.size() == static_cast<std::size_t>(options.limit) && options.state.empty())
    fmt::print("More: --before {}\n", text(rows.back(), "id"));
}

std::string what_follows(const Json& tx) {
  const std::string outcome = text(tx, "outcome"), id = text(tx, "id");
  // A committed one may be a refusal in its own words, or a batch some of whose items were refused.
  if (outcome == "committed") return "It is over: what its reply says took effect, whole.";
  if (outcome == "aborted") return "It is over: nothing took effect.";
  if (outcome == "in_doubt")
    return "It is decided, but a stage outside does not answer as it should. Each sweep tries again. When you know "
           "what happened there:\n  sluice tx settle " + id + " committed --reason \"...\"\n  sluice tx settle " + id +
           " aborted --reason \"...\"";
  if (outcome == "paused")
    return "It waits for an event from outside, or its timeout. Whoever has the wake token may send sluice.tx.wake.";
  if (outcome == "pending") return "It is decided; its stages outside are being finished, also after a restart.";
  if (outcome == "unknown")
    return "The store could not say whether it was written. Repeat the request with its key, or look at what it changes.";
  return "It is not decided. If its process is gone, the next sweep undoes what it began.";
}

void show(const TxOptions& options) {
  const HttpAnswer answer = http_get(options, "/v1/transactions/" + options.id);
  if (!answer.ok()) refuse(options, answer);
  if (options.json) return fmt::print("{}\n", answer.body);
  const Json& tx = answer.json;
  fmt::print("transaction  {}\noutcome      {}{}\nbegan        {} UTC\n", text(tx, "id"), text(tx, "outcome"),
             text(tx, "cause").empty() ? "" : " (" + text(tx, "cause") + ")", when(tx, "began_ms"));
  if (!text(tx, "flow").empty()) fmt::print("flow         {} version {}\n", text(tx, "flow"), tx.value("version", 0));
  for (const char* name : {"command", "namespace", "principal", "reference", "correlation_id"})
    if (!text(tx, name).empty()) fmt::print("{:<12} {}\n", name, text(tx, name));
  for (const auto& stage : tx.value("stages", Json::array()))
    fmt::print("stage        {}. {} ({}): {}\n", stage.value("step", 0), text(stage, "stage"),
               stage.value("external", false) ? "outside" : "in the store", text(stage, "state"));
  if (tx.contains("reply"))
    fmt::print("reply        {}{}{}\n", text(tx["reply"], "kind"),
               text(tx["reply"], "code").empty() ? "" : "/" + text(tx["reply"], "code"),
               tx["reply"].contains("body") && !tx["reply"]["body"].is_null() ? " " + tx["reply"]["body"].dump() : "");
  if (tx.contains("audit"))
    fmt::print("audit        {} at {} UTC\n", text(tx["audit"], "outcome"), when(tx["audit"], "at_ms"));
  if (tx.contains("settled"))
    fmt::print("settled      by {}: {}\n", text(tx["settled"], "by"), text(tx["settled"], "reason"));
  fmt::print("\n{}\n", what_follows(tx));
}

void settle(const TxOptions& options) {
  const HttpAnswer answer = run_command(
      options, "sluice.tx.settle", {{"id", options.id}, {"outcome", options.outcome}, {"reason", options.reason}});
  if (!answer.ok()) refuse(options, answer);
  if (options.json) return fmt::print("{}\n", answer.body);
  fmt::print("Transaction {} is settled as {}; the reason is kept with it.\n", options.id, options.outcome);
}

void graph(const TxOptions& options) {
  Json payload = Json::object();
  if (!options.flow.empty()) payload["flow"] = options.flow;
  const HttpAnswer answer = run_command(options, "sluice.tx.graph", payload);
  if (!answer.ok()) refuse(options, answer);
  if (options.json) return fmt::print("{}\n", answer.body);
  for (const auto& flow : answer.json.value("flows", Json::array())) {
    fmt::print("{}\n", text(flow, options.dot ? "dot" : "mermaid"));
    for (const auto& finding : flow.value("lint", Json::array()))
      fmt::print(stderr, "warning: {}\n", finding.get<std::string>());
  }
}

struct KeyOptions : ServerOptions {
  std::string key, command, app, principal;
  int version = 1;
};

// Where `sluice send` puts its keys: the command's own app.
std::string app_of(const KeyOptions& options) {
  const HttpAnswer answer = http_get(options, "/v1/commands");
  if (!answer.ok()) refuse(options, answer);
  for (const auto& one : answer.json.value("commands", Json::array()))
    if (text(one, "name") == options.command && one.value("version", 0) == options.version) return text(one, "app");
  die({FailureKind::not_found, "unknown_command",
       fmt::format("the server has no command '{}' of version {} that this token may see; if it had one, name the app it was sent to: --app NAME",
                   options.command, options.version)});
}

void show_key(const KeyOptions& options) {
  const std::string app = options.app.empty() ? app_of(options) : options.app;
  if (!options.json)
    fmt::print(stderr, "Key {} of {} in app {}, command {} version {}:\n", options.key, options.principal, app, options.command, options.version);
  const HttpAnswer answer = run_command(options, "sluice.idempotency.show",
                                        {{"app", app},
                                         {"principal", options.principal},
                                         {"command", options.command},
                                         {"version", options.version},
                                         {"key", options.key}});
  if (!answer.ok()) refuse(options, answer);
  fmt::print("{}\n", options.json || answer.json.is_discarded() ? answer.body : answer.json.dump(2));
}

}  // namespace

void add_tx(CLI::App& app) {
  auto* tx = app.add_subcommand("tx", "Transactions of a running server: list, show, settle, graph");
  tx->require_subcommand(1);
  tx->footer("Example: sluice tx list --state in_doubt");
  auto options = std::make_shared<TxOptions>();
  const auto add = [&](const char* name, const char* what, void (*run)(const TxOptions&)) {
    auto* command = tx->add_subcommand(name, what);
    add_server_options(*command, *options);
    command->callback([options, run] { run(*options); });
    return command;
  };
  auto* listing = add("list", "The newest, or those that are open", list);
  listing->add_option("--state", options->state, "open (all that are not over), in_doubt, or paused")
      ->check(CLI::IsMember({"open", "in_doubt", "paused"}));
  listing->add_option("--limit", options->limit, "How many")->check(CLI::Range(1, 1000))->capture_default_str();
  listing->add_option("--before", options->before, "Older than this transaction: its id, as the list shows it")
      ->check(CLI::Validator(
          [](std::string& given) {
            return id_from_text(given) ? std::string()
                                       : "expected the id of a transaction, 13 characters as `sluice tx list` shows it, got '" + given + "'";
          },
          "", "transaction"));
  listing->footer("Examples:\n  sluice tx list\n  sluice tx list --state in_doubt --json");
  auto* showing = add("show", "One transaction: what is known, stage by stage, and what follows", show);
  showing->add_option("id", options->id, "As the reply's X-Sluice-Transaction says")->required();
  showing->footer("Example: sluice tx show 0aknkev7g0401");
  auto* settling = add("settle", "Says how one in doubt ended, for good", settle);
  settling->add_option("id", options->id, "As `sluice tx list --state in_doubt` shows it")->required();
  settling->add_option("outcome", options->outcome, "committed or aborted")
      ->required()
      ->check(CLI::IsMember({"committed", "aborted"}));
  settling->add_option("--reason", options->reason, "Kept with the transaction, with who settled it")->required();
  settling->footer("Example: sluice tx settle 0aknkev7g0401 committed --reason \"partner's statement of 3 May\"");
  auto* drawing = add("graph", "Draws the flows as Mermaid (default) or DOT", graph);
  drawing->add_option("flow", options->flow, "One flow; default: all");
  auto* dot = drawing->add_flag("--dot", options->dot, "For Graphviz");
  drawing->add_flag("--mermaid", options->mermaid, "For Markdown")->excludes(dot);
  drawing->footer("Example: sluice tx graph voucher.distribute --dot | dot -Tsvg > flow.svg");
}

void add_idempotency(CLI::App& app) {
  auto* idempotency = app.add_subcommand("idempotency", "Idempotency keys of a running server");
  idempotency->require_subcommand(1);
  idempotency->footer("Example: sluice idempotency show order-17 --command kv.add --principal till-7");
  auto options = std::make_shared<KeyOptions>();
  auto* showing = idempotency->add_subcommand("show", "What is stored under a key");
  showing->add_option("key", options->key, "As the client sent it")->required();
  showing->add_option("--command", options->command, "The key belongs to this command")->required();
  showing->add_option("--principal", options->principal, "Name of the token that sent it: a name is a principal")->required();
  showing->add_option("--app", options->app, "Namespace; default: the command's own");
  showing->add_option("--command-version", options->version, "Of the command")->capture_default_str();
  add_server_options(*showing, *options);
  showing->footer("Example: sluice idempotency show order-17 --command kv.add --principal till-7");
  showing->callback([options] { show_key(*options); });
}

}  // namespace sluice::cli
