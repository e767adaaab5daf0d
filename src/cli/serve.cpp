#include <arpa/inet.h>
#include <fmt/format.h>
#include <pthread.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice::cli {

namespace {

struct ServeOptions : AppOptions {
  std::string config, listen, grpc_listen, store, log_level;
};

struct Listen {
  std::string host, port;  // of [::1]:80 without the brackets; "80" has no host
};
Listen split(const std::string& text) {
  const auto colon = text.rfind(':');
  if (colon == std::string::npos) return {"", text};
  Listen out{text.substr(0, colon), text.substr(colon + 1)};
  if (out.host.starts_with('[') && out.host.ends_with(']')) out.host = out.host.substr(1, out.host.size() - 2);
  return out;
}

bool is_port(const std::string& text) {
  return !text.empty() && text.size() <= 5 && text.find_first_not_of("0123456789") == std::string::npos &&
         std::stoi(text) <= 65535;
}

bool is_address(const std::string& text) {
  in6_addr room;
  return inet_pton(AF_INET, text.c_str(), &room) == 1 || inet_pton(AF_INET6, text.c_str(), &room) == 1;
}

// Empty: good. Said here, where the flag is known, and not by the configuration it goes into.
std::string check_listen(const std::string& text) {
  const Listen listen = split(text);
  if (is_port(listen.port) && (text.find(':') == std::string::npos || is_address(listen.host))) return {};
  return "expected ADDRESS:PORT or PORT, an IPv4 or [IPv6] address and 0 to 65535, got '" + text + "'";
}
std::string check_grpc_listen(const std::string& text) {
  const Listen listen = split(text);
  if (!listen.host.empty() && is_port(listen.port)) return {};
  return "expected HOST:PORT, the port 0 to 65535, got '" + text + "'";
}

std::string check_log_level(const std::string& text) {
  for (const auto* level : {"trace", "debug", "info", "warn", "error", "off"})
    if (text == level) return {};
  return "expected trace, debug, info, warn, error or off, got '" + text + "'";
}

// What nobody can serve with is a wrong configuration, said with its place, and not a failure to start.
void check_files_or_die(const server::Config& config) {
  const auto usable = server::check_files(config);
  if (usable) return;
  fmt::print(stderr, "sluice: {}\n", usable.error().to_string());
  std::exit(2);
}

void serve(const ServeOptions& options) {
  // Blocked before any thread starts, so that only the wait below sees them.
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGINT);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  // A file past the limit of `ulimit -f` is a full disk like any other: an error, not the end.
  std::signal(SIGXFSZ, SIG_IGN);

  auto environment = environment_with_store(options.store);
  if (!options.listen.empty()) {
    const Listen listen = split(options.listen);
    if (!listen.host.empty()) environment["SLUICE_HTTP_ADDRESS"] = listen.host;
    environment["SLUICE_HTTP_PORT"] = listen.port;
  }
  if (!options.grpc_listen.empty()) environment["SLUICE_GRPC_LISTEN"] = options.grpc_listen;
  if (!options.log_level.empty()) environment["SLUICE_LOG_LEVEL"] = options.log_level;
  auto config = load_config_or_die(options.config, environment);
  // What is wrong with a door's address was said by the flag, not by the variable that carries it.
  if (!split(options.listen).host.empty()) config.places["http.address"] = "--listen";
  if (!options.grpc_listen.empty()) config.places["grpc.listen"] = "--grpc-listen";
  check_files_or_die(config);
  server::ServerParts parts;
  parts.apps = linked_apps(options);
  parts.first_token = [](const std::string& token) {
    fmt::print("First start. The administrator's token, shown this once:\n  {}\n", token);
    std::fflush(stdout);
  };
  auto opened = server::Server::open(std::move(config), std::move(parts));
  if (!opened) die(opened.error());
  auto& server = **opened;
  if (const auto started = server.start(); !started) die(started.error());
  fmt::print("Listening on http://{}:{}\n", server.config().http.address, server.port());
  if (server.grpc_port() != 0)
    fmt::print("gRPC on {} (port {})\n", server.config().grpc.listen, server.grpc_port());
  std::fflush(stdout);
  int signal = 0;
  while (sigwait(&stop, &signal), signal == SIGHUP) {
    const auto reloaded = server.reload_rules();
    fmt::print("{}\n", reloaded ? "Rules read again: " + reloaded->text : reloaded.error().to_string());
    std::fflush(stdout);
  }
  const auto& config_now = server.config();
  fmt::print("Stopping: {}what runs may finish within {} ms\n",
             config_now.drain_delay.count() > 0 ? fmt::format("no longer ready, in {} ms the doors close; ", config_now.drain_delay.count()) : "",
             config_now.grace.count());
  std::fflush(stdout);
  if (const auto stopped = server.stop(); !stopped) die(stopped.error());
}

// Every key with its value, under its section, for programs.
void show_json(const server::Config& config) {
  nlohmann::ordered_json all;
  const auto show = [&](const server::ConfigKey& key, nlohmann::ordered_json& in, std::size_t from) {
    const auto dot = key.name.find('.', from);
    auto& place = in[std::string(key.name.substr(from, dot - from))][std::string(key.name.substr(dot + 1))];
    const std::string value = key.get(config);
    if (key.type == server::KeyType::text)
      place = value;
    else
      place = nlohmann::ordered_json::parse(value, nullptr, false);
  };
  for (const auto& key : server::config_keys()) show(key, all, 0);
  for (const auto& [name, channel] : config.channels)
    for (const auto& key : server::channel_keys(name)) show(key, all["channels"], std::string_view("channels.").size());
  fmt::print("{}\n", all.dump());
}

}  // namespace

server::Config load_config_or_die(const std::string& path, const server::Environment& environment) {
  auto config = server::load_config(path, environment);
  if (config) {
    for (const auto& warning : config->warnings) fmt::print(stderr, "sluice: warning: {}\n", warning);
    return *std::move(config);
  }
  // Also a file that is not there: what was asked for is wrong, trying again does not help.
  fmt::print(stderr, "sluice: {}\n", config.error().to_string());
  std::exit(2);
}

void add_serve(CLI::App& app) {
  auto* serve_command = app.add_subcommand("serve", "Runs the server until SIGTERM or Ctrl-C");
  auto options = std::make_shared<ServeOptions>();
  add_config_option(*serve_command, options->config);
  serve_command->add_option("--listen", options->listen, "ADDRESS:PORT or PORT; 0: any free port")
      ->check(CLI::Validator([](std::string& text) { return check_listen(text); }, "", "listen"));
  serve_command->add_option("--grpc-listen", options->grpc_listen,
                            "HOST:PORT of the gRPC door; without one there is none")
      ->check(CLI::Validator([](std::string& text) { return check_grpc_listen(text); }, "", "grpc-listen"));
  serve_command->add_option("--store", options->store, "Path of the SQLite database, or postgres://…");
  serve_command->add_option("--log-level", options->log_level, "trace, debug, info, warn, error or off")
      ->check(CLI::Validator([](std::string& text) { return check_log_level(text); }, "", "log-level"));
  add_app_options(*serve_command, *options);
  serve_command->footer(
      "Options win over SLUICE_* variables, and those over the file.\n"
      "Examples:\n  sluice serve --config sluice.toml\n  sluice serve --listen 127.0.0.1:9000 --store orders.db\n"
      "  sluice serve --grpc-listen 127.0.0.1:9090\n"
      "  sluice serve --store postgres://sluice@db.internal/orders?sslmode=verify-full");
  serve_command->callback([options] { serve(*options); });
}

void add_config(CLI::App& app) {
  auto* config = app.add_subcommand("config", "Checks and shows the configuration");
  config->require_subcommand(1);
  config->footer("A flag beats its SLUICE_* variable, and that the file. docs/reference.md lists every key.\n"
                 "Examples:\n  sluice config check sluice.toml\n  sluice config show > sluice.toml");
  struct Options {
    std::string path, file;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  for (const bool show : {false, true}) {
    auto* command = config->add_subcommand(
        show ? "show" : "check", show ? "Prints every key with its value" : "Says what is wrong");
    add_config_option(*command, options->path);
    command->add_option("file", options->file, "The same; wins over --config");
    if (show) command->add_flag("--json", options->json, "For programs");
    command->footer(fmt::format("Example: sluice config {} sluice.toml", show ? "show" : "check"));
    command->callback([options, show] {
      const auto loaded = load_config_or_die(options->file.empty() ? options->path : options->file, config_environment());
      if (!show) {
        check_files_or_die(loaded);
        fmt::print("The configuration is good.\n");
      } else if (options->json) {
        show_json(loaded);
      } else {
        fmt::print("{}", server::show_config(loaded));
      }
    });
  }
}

}  // namespace sluice::cli
