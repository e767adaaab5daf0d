#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

#include "cli/commands.hpp"
#include "apps/voucher/app.hpp"

namespace sluice::cli {

namespace {
// To plug a subcommand in: a function in commands.hpp and a line here.
constexpr void (*kCommands[])(CLI::App&) = {
    add_serve,
    add_config,
    add_token,
    add_demo,
    add_bench,
};

void list(const CLI::App& app, const std::string& prefix) {
  for (const auto* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    fmt::print("{}{}\n", prefix, sub->get_name());
    list(*sub, prefix + sub->get_name() + " ");
  }
}
}  // namespace

void die(const Failure& failure) {
  fmt::print(stderr, "sluice: {}\n", failure.to_string());
  std::exit(failure.kind() == FailureKind::invalid_argument ? 2 : 1);
}

std::vector<std::unique_ptr<server::App>> linked_apps() {
  std::vector<std::unique_ptr<server::App>> apps;
  apps.push_back(voucher::make_app());
  return apps;
}

}  // namespace sluice::cli

int main(int argc, char** argv) {
  CLI::App app("Sluice: a transaction runtime for services", "sluice");
  app.require_subcommand(1);
  app.footer("Example: sluice serve --config sluice.toml");
  app.add_subcommand("version", "Prints the version")->callback([] {
    fmt::print("sluice {}\n", SLUICE_VERSION);
  });
  auto* completion = app.add_subcommand("completion", "Prints all commands, for shell completion");
  completion->footer("Example: complete -W \"$(sluice completion)\" sluice");
  completion->callback([&app] { sluice::cli::list(app, ""); });
  for (auto* add : sluice::cli::kCommands) add(app);
  CLI11_PARSE(app, argc, argv);
  return 0;
}
