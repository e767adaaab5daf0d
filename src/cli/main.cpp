#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "cli/commands.hpp"
#include "sluice/base/spelling.hpp"

namespace sluice::cli {

namespace {
// To plug a subcommand in: a function in commands.hpp and a line here.
constexpr void (*kCommands[])(CLI::App&) = {
    add_serve,
    add_config,
    add_send,
    add_tx,
    add_audit,
    add_idempotency,
    add_token,
    add_guards,
    add_voucher,
    add_demo,
    add_bench,
    add_migrate,
    add_doctor,
    add_backup,
    add_completion,
};

/// The subcommand that the arguments name, as deep as they do.
CLI::App* named(CLI::App& app, const std::vector<std::string>& arguments, std::string& path, std::string& unknown) {
  CLI::App* at = &app;
  for (const auto& argument : arguments) {
    if (argument.starts_with('-') || at->get_subcommands([](const CLI::App*) { return true; }).empty()) break;
    const auto found = at->get_subcommands([&](const CLI::App* sub) { return sub->get_name() == argument; });
    CLI::App* const next = found.empty() ? nullptr : found.front();
    if (next == nullptr) {
      unknown = argument;
      break;
    }
    at = next;
    path += " " + argument;
  }
  return at;
}

// The first option that the command does not have, with what is near.
void suggest_option(const CLI::App& at, const std::vector<std::string>& arguments) {
  std::vector<std::string> names;
  for (const auto* option : at.get_options())
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  for (const auto& argument : arguments) {
    const std::string name = argument.substr(0, argument.find('='));
    if (!name.starts_with("--") || name == "--" || std::ranges::find(names, name) != names.end()) continue;
    if (const std::string near = nearest_word(name, names); !near.empty())
      fmt::print(stderr, "Did you mean '{}' instead of '{}'?\n", near, name);
    return;
  }
}

// Says what is wrong, what is near, and where help is. Status 2.
int usage(CLI::App& app, const std::vector<std::string>& arguments, const CLI::ParseError& error) {
  std::string path = "sluice", unknown;
  const CLI::App* at = named(app, arguments, path, unknown);
  const auto subcommands = at->get_subcommands([](const CLI::App*) { return true; });
  if (!unknown.empty()) {
    fmt::print(stderr, "{}: there is no '{}'.", path, unknown);
    std::vector<std::string> names;
    for (const auto* sub : subcommands) names.push_back(sub->get_name());
    if (const std::string near = nearest_word(unknown, names); !near.empty())
      fmt::print(stderr, " Did you mean '{}'?", near);
    fmt::print(stderr, "\n");
  } else if (!subcommands.empty() && dynamic_cast<const CLI::RequiredError*>(&error) != nullptr) {
    fmt::print(stderr, "{}: say what to do:", path);
    for (const auto* sub : subcommands) fmt::print(stderr, " {}", sub->get_name());
    fmt::print(stderr, "\n");
  } else {
    fmt::print(stderr, "{}: {}\n", path, error.what());
    suggest_option(*at, arguments);
  }
  fmt::print(stderr, "See `{} --help`.\n", path);
  return 2;
}

}  // namespace

int run(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::RuntimeError& ended) {
    return ended.get_exit_code();
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // help
    return usage(app, std::vector<std::string>(argv + 1, argv + argc), error);
  } catch (const std::exception& error) {
    fmt::print(stderr, "sluice: {}\n  This is a defect; report it with this text.\n", error.what());
    return 1;
  }
}

void die(const Failure& failure) {
  fmt::print(stderr, "sluice: {}\n", failure.to_string());
  std::exit(failure.kind() == FailureKind::invalid_argument ? 2 : 1);
}

}  // namespace sluice::cli

int main(int argc, char** argv) {
  CLI::App app("Sluice: a transaction runtime for services", "sluice");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("sluice ") + SLUICE_VERSION, "Prints the version and ends");
  app.footer(
      "Exit status: 0 done, 1 failed or refused, 2 usage or configuration, 3 accepted and not settled yet,\n"
      "4 no answer: it may have taken effect.\n"
      "Examples:\n"
      "  sluice serve --config sluice.toml\n"
      "  sluice send sluice.echo '{\"hello\":1}' --key first --token $SLUICE_TOKEN");
  auto* version = app.add_subcommand("version", "Prints the version, as --version does");
  version->footer("Example: sluice version");
  version->callback([] { fmt::print("sluice {}\n", SLUICE_VERSION); });
  for (auto* add : sluice::cli::kCommands) add(app);
  return sluice::cli::run(app, argc, argv);
}
