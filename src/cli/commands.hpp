// What the sluice command is made of: each file adds its subcommands; main.cpp has the table.
#pragma once
#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "sluice/server/server.hpp"

namespace sluice::cli {

void add_serve(CLI::App& app);
void add_config(CLI::App& app);
void add_token(CLI::App& app);
void add_guards(CLI::App& app);
void add_send(CLI::App& app);
void add_tx(CLI::App& app);
void add_audit(CLI::App& app);
void add_idempotency(CLI::App& app);
void add_voucher(CLI::App& app);
void add_demo(CLI::App& app);
void add_bench(CLI::App& app);
void add_migrate(CLI::App& app);
void add_doctor(CLI::App& app);
void add_backup(CLI::App& app);
void add_completion(CLI::App& app);

/// Which of the applications this binary is linked with are to run, and how.
struct AppOptions {
  std::vector<std::string> apps{"voucher"};  ///< voucher, codes, users
  std::vector<std::string> regions;
  std::uint32_t keep_requests_hours = 24;
  std::string code_service, user_service, code_token, user_token, service_ca, owner, fault_plan;
  int downstream_timeout_ms = 500;
  std::int64_t segment_codes = 200;
  std::uint64_t caller_rate = 0, caller_region_rate = 0;
  bool bypass_code_cache = false;
};
void add_app_options(CLI::App& command, AppOptions& options);
/// Ends the command when an option is wrong.
std::vector<std::unique_ptr<server::App>> linked_apps(const AppOptions& options = {});

/// The configuration; ends the command with status 2 when there is none to be had.
server::Config load_config_or_die(const std::string& path, const server::Environment& environment);

/// This process's, with what --store names: a file, or postgres://….
server::Environment environment_with_store(const std::string& store);

/// Ends the command with status 2 when it names a file of SQLite that is not there: for what looks at
/// a store, and would make an empty one of a name that is misspelt.
void need_store(const server::Config& config);

/// Ends the command: says what failed on standard error. Status 2: what was asked for is wrong; 1:
/// it could not be done.
[[noreturn]] void die(const Failure& failure);

}  // namespace sluice::cli
