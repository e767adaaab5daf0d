#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "cli/commands.hpp"

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
    add_completion,
};

// How many letters must be changed, added or taken away.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

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

std::string nearest(const std::string& word, const std::vector<std::string>& names) {
  std::string found;
  std::size_t best = 4;
  for (const auto& name : names)
    if (const auto far = distance(word, name); far < best && far < word.size()) best = far, found = name;
  return found;
}

// The first option that the command does not have, with what is near.
void suggest_option(const CLI::App& at, const std::vector<std::string>& arguments) {
  std::vector<std::string> names;
  for (const auto* option : at.get_options())
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  for (const auto& argument : arguments) {
    const std::string name = argument.substr(0, argument.find('='));
    if (!name.starts_with("--") || name == "--" || std::ranges::find(names, name) != names.end()) continue;
    if (const std::string near = nearest(name, names); !near.empty())
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
    if (const std::string near = nearest(unknown, names); !near.empty())
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
  app.add_subcommand("version", "Prints the version")->callback([] {
    fmt::print("sluice {}\n", SLUICE_VERSION);
  });
  for (auto* add : sluice::cli::kCommands) add(app);
  return sluice::cli::run(app, argc, argv);
}
