// The home of options that the environment may set as well. CLI11's own envname() is not used: it
// reads the variables of every subcommand, also of those that were not asked for, so that options
// which share a variable's place overwrite what the command line gave.
#pragma once
#include <CLI/CLI.hpp>
#include <string>

#include "sluice/server/config.hpp"

namespace sluice::cli {

/// The option takes `variable`'s value when the command line does not give it; read, and checked as
/// if it were typed, only when `command` is the one that runs. A set but empty variable is none.
/// Named at the end of the option's help. `option` must belong to `command`.
CLI::Option* from_environment(CLI::App& command, CLI::Option* option, const std::string& variable);

/// --config with SLUICE_CONFIG.
CLI::Option* add_config_option(CLI::App& command, std::string& path,
                               const std::string& what = "TOML file; without one: defaults");

/// SLUICE_* variables that are the server's configuration: all but those of from_environment().
server::Environment config_environment();

}  // namespace sluice::cli
