#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cli/json_text.hpp"
#include "cli/options.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice::cli {

namespace {

// Whoever opens it first has drawn the new incarnation, and a server that is started after it finds nothing to tell.
void tell_if_moved(store::Store& store) {
  const auto* file = dynamic_cast<store::SqliteStore*>(&store);
  const auto* shared = dynamic_cast<store::PostgresStore*>(&store);
  if ((file != nullptr && file->of_another_file()) || (shared != nullptr && shared->of_another_database()))
    fmt::print(stderr, "sluice: warning: what this store holds stood elsewhere before, moved or restored from a backup: a new incarnation was "
                       "drawn, and leases and fencing tokens from before are void\n");
}

// A SQLite store of a stopped server, or a PostgreSQL that nodes may run on; a server that runs is asked with the command
// sluice.token.create.
template <class Work>
void with_tokens(const std::string& path, const std::string& database, bool makes, Work work) {
  const auto config = load_config_or_die(path, environment_with_store(database));
  if (!makes) need_store(config);
  RealClock clock;
  RealRandom random;
  RealExecutor executor(clock);
  auto store = server::open_store(config, clock, random, executor);
  if (!store) die(store.error());
  tell_if_moved(**store);
  server::Tokens tokens(**store, random);
  if (const auto loaded = tokens.load(); !loaded) die(loaded.error());
  work(tokens);
  (*store)->close();
}

struct Options {
  std::string config, store, name, id, replaces;
  std::vector<std::string> permissions;
  std::int64_t ttl_seconds = 0;
  bool shadow = false, json = false;
};

// Nobody has it, and it cannot be shown again. Its name stays its own, so another is made by renewing it.
[[noreturn]] void not_shown(server::Tokens& tokens, const Options& options, const std::string& id) {
  const auto revoked = tokens.revoke(id);
  std::string what = fmt::format("the token could not be written to standard output (is the disk full?) and is {}",
                                 revoked ? "revoked" : "NOT revoked, as that failed too: " + revoked.error().to_string());
  if (!options.replaces.empty()) what += fmt::format("; the one it replaced, {}, has ended with it", options.replaces);
  die(Failure(FailureKind::unavailable, "cannot_write",
              fmt::format("{}. Make room, and renew it, with the same options otherwise: sluice token create {} --replaces {}",
                          what, options.name, id)));
}

void create(const Options& options) {
  if (options.permissions.empty())
    fmt::print(stderr, "sluice: warning: without --grant this token may do nothing; give it what it is for, as --grant 'voucher:*'\n");
  with_tokens(options.config, options.store, true, [&](server::Tokens& tokens) {
    const auto made = tokens.create(
        {options.name, options.permissions, options.shadow, seconds(options.ttl_seconds), options.replaces});
    if (!made) die(made.error());
    const nlohmann::ordered_json json{{"id", made->info.id}, {"token", made->token}};
    fmt::print("{}\n", options.json ? json.dump() : made->token);
    if (std::fflush(stdout) != 0) not_shown(tokens, options, made->info.id);
    if (!options.json)
      fmt::print(stderr, "Its id is {}: what --replaces and `sluice token revoke` take.\n", made->info.id);
  });
}

void list(const Options& options) {
  with_tokens(options.config, options.store, false, [&](server::Tokens& tokens) {
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const auto& info : tokens.list()) {
      all.push_back({{"id", info.id},
                     {"name", info.name},
                     {"permissions", info.permissions},
                     {"shadow", info.may_shadow},
                     {"revoked", info.revoked}});
      if (info.expires != WallTime::max()) all.back()["expires_ms"] = info.expires.time_since_epoch().count();
    }
    if (options.json) return fmt::print("{}\n", all.dump());
    if (all.empty()) return fmt::print("No tokens.\n");
    fmt::print("{:<16}  {:<20} {:<8} {:<19}  {}\n", "ID", "NAME", "STATE", "UNTIL (UTC)", "MAY");
    for (const auto& one : all)
      fmt::print("{:<16}  {:<20} {:<8} {:<19}  {}{}\n", text(one, "id"), text(one, "name"), one["revoked"].get<bool>() ? "revoked" : "",
                 one.contains("expires_ms") ? when(one, "expires_ms") : "no end",
                 fmt::join(one["permissions"].get<std::vector<std::string>>(), " "), one["shadow"].get<bool>() ? " (shadow traffic too)" : "");
  });
}

}  // namespace

void add_token(CLI::App& app) {
  auto* token = app.add_subcommand("token", "Tokens in a store, without a server");
  token->require_subcommand(1);
  token->footer("On SQLite while the server is stopped; on PostgreSQL also while nodes run, which take it within two seconds.\n"
                "Example: sluice token create till-7 --grant 'voucher:*'");
  auto options = std::make_shared<Options>();
  const auto add = [&](const char* name, const char* what) {
    auto* command = token->add_subcommand(name, what);
    add_config_option(*command, options->config);
    command->add_option("--store", options->store, "Path of the SQLite database (of a stopped server), or postgres://…; overrides the configuration");
    command->add_flag("--json", options->json, "For programs");
    return command;
  };
  auto* create_command = add("create", "Makes a token and prints it, once");
  create_command->add_option("name", options->name, "Who holds it: the principal of its requests, one token for each")->required();
  create_command->add_option("--grant", options->permissions,
                             "app:command patterns, * for any: what it may do; without one it may do nothing");
  create_command->add_option("--ttl", options->ttl_seconds, "Life in seconds; 0: no end")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{3'153'600'000}));
  create_command->add_option("--replaces", options->replaces, "Id of the token of this name that ends now; its keys go on");
  create_command->add_flag("--shadow", options->shadow, "May send shadow traffic");
  create_command->footer("Example: sluice token create till-7 --grant 'voucher:*' --ttl 86400");
  create_command->callback([options] { create(*options); });
  auto* listing = add("list", "All tokens, without their secrets: id, name, until when, what it may do, whether it is revoked");
  listing->footer("On a running server: sluice send sluice.token.list '{}'\nExample: sluice token list --store orders.db --json");
  listing->callback([options] { list(*options); });
  auto* revoke = add("revoke", "Ends a token, for good: to give its holder another, `token create NAME --replaces ID` renews it");
  revoke->footer("On a running server: sluice send sluice.token.revoke '{\"id\":\"496aa0d146439988\"}'\n"
                 "Example: sluice token revoke 496aa0d146439988");
  revoke->add_option("id", options->id, "As `token list` shows it")->required();
  revoke->callback([options] {
    with_tokens(options->config, options->store, false, [&](server::Tokens& tokens) {
      if (const auto revoked = tokens.revoke(options->id); !revoked) die(revoked.error());
      fmt::print("{}\n", options->json ? nlohmann::ordered_json{{"id", options->id}, {"revoked", true}}.dump()
                                       : fmt::format("Token {} is revoked.", options->id));
    });
  });
}

}  // namespace sluice::cli
