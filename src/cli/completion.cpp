// sluice completion: the table of subcommands and options as a script for a shell.
#include <fmt/format.h>

#include "cli/commands.hpp"

namespace sluice::cli {
namespace {

constexpr auto kAll = [](const CLI::App*) { return true; };

struct Place {
  std::string path;  ///< " tx list"; empty at the root
  const CLI::App* app;
};

void collect(const CLI::App& app, const std::string& path, std::vector<Place>& places) {
  places.push_back({path, &app});
  for (const auto* sub : app.get_subcommands(kAll)) collect(*sub, path + " " + sub->get_name(), places);
}

std::vector<std::string> options_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const auto* option : app.get_options())
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

void print_names(const std::vector<Place>& places) {
  for (const auto& place : places)
    if (!place.path.empty()) fmt::print("{}\n", place.path.substr(1));
}

// Where nothing of ours fits, file names do.
void print_bash(const std::vector<Place>& places) {
  fmt::print("_sluice() {{\n  local cur=${{COMP_WORDS[COMP_CWORD]}} path= word\n"
             "  for word in \"${{COMP_WORDS[@]:1:COMP_CWORD-1}}\"; do\n    case \"$path $word\" in\n");
  for (const auto& place : places)
    if (!place.path.empty()) fmt::print("      '{0}') path='{0}' ;;\n", place.path);
  fmt::print("    esac\n  done\n  case \"$path\" in\n");
  for (const auto& place : places) {
    std::string words;
    for (const auto* sub : place.app->get_subcommands(kAll)) words += sub->get_name() + " ";
    for (const auto& option : options_of(*place.app)) words += option + " ";
    fmt::print("    '{}') COMPREPLY=($(compgen -W '{}' -- \"$cur\")) ;;\n", place.path, words);
  }
  fmt::print("  esac\n  [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- \"$cur\"))\n}}\n"
             "complete -F _sluice sluice\n");
}

void print_fish(const std::vector<Place>& places) {
  const auto quoted = [](std::string text) {
    for (std::size_t at = 0; (at = text.find('\'', at)) != std::string::npos; at += 2) text.insert(at, "\\");
    return "'" + text + "'";
  };
  fmt::print("function __sluice_at\n  set -l words (commandline -opc)\n"
             "  test (string join ' ' -- (string match -v -- '-*' $words[2..])) = \"$argv[1]\"\nend\n");
  for (const auto& place : places) {
    const std::string at = "__sluice_at \"" + (place.path.empty() ? "" : place.path.substr(1)) + "\"";
    for (const auto* sub : place.app->get_subcommands(kAll))
      fmt::print("complete -c sluice -f -n {} -a {} -d {}\n", quoted(at), sub->get_name(), quoted(sub->get_description()));
    for (const auto* option : place.app->get_options())
      for (const auto& name : option->get_lnames())
        fmt::print("complete -c sluice -n {} -l {} -d {}\n", quoted(at), name, quoted(option->get_description()));
  }
}

}  // namespace

void add_completion(CLI::App& app) {
  auto* completion = app.add_subcommand("completion", "Prints a completion script for a shell");
  auto shell = std::make_shared<std::string>();
  completion->add_option("shell", *shell, "bash, zsh or fish; without one: all commands, a line each")
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  completion->footer("Examples:\n  source <(sluice completion bash)\n  source <(sluice completion zsh)\n"
                     "  sluice completion fish | source");
  completion->callback([&app, shell] {
    std::vector<Place> places;
    collect(app, "", places);
    if (shell->empty()) return print_names(places);
    if (*shell == "fish") return print_fish(places);
    if (*shell == "zsh") fmt::print("autoload -U +X bashcompinit && bashcompinit\n");
    print_bash(places);
  });
}

}  // namespace sluice::cli
