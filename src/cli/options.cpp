#include "cli/options.hpp"

#include <cstdlib>
#include <vector>

namespace sluice::cli {
namespace {

struct Bound {
  CLI::App* command;
  CLI::Option* option;
  std::string variable;
};

// Of the one command line that a process has; grows while subcommands are added.
std::vector<Bound>& all_bound() {
  static std::vector<Bound> all;
  return all;
}

// As a default, so that what is typed comes later and wins.
void take(const Bound& bound) {
  const char* value = std::getenv(bound.variable.c_str());
  if (value == nullptr || *value == '\0') return;
  const std::string shown = bound.option->get_default_str();
  try {
    bound.option->run_callback_for_default()->default_val(std::string(value));
  } catch (const CLI::ParseError& error) {
    throw CLI::ValidationError("environment: " + bound.variable, error.what());
  }
  bound.option->default_str(shown);  // help shows no value of the environment: it may be a token
}

}  // namespace

CLI::Option* from_environment(CLI::App& command, CLI::Option* option, const std::string& variable) {
  option->description(option->get_description() + " (environment: " + variable + ")");
  all_bound().push_back({&command, option, variable});
  command.preparse_callback([command = &command](std::size_t) {
    for (const auto& bound : all_bound())
      if (bound.command == command) take(bound);
  });
  return option;
}

CLI::Option* add_config_option(CLI::App& command, std::string& path, const std::string& what) {
  return from_environment(command, command.add_option("--config", path, what), "SLUICE_CONFIG");
}

server::Environment config_environment() {
  auto environment = server::process_environment();
  for (const auto& bound : all_bound()) environment.erase(bound.variable);
  return environment;
}

}  // namespace sluice::cli
