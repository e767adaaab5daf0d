#include <fmt/format.h>
#include <pthread.h>

#include <csignal>

#include "cli/commands.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice::cli {

namespace {

struct ServeOptions {
  std::string config, listen, grpc_listen, store, log_level;
};

void serve(const ServeOptions& options) {
  // Blocked before any thread starts, so that only the wait below sees them.
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGINT);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  auto environment = server::process_environment();
  if (!options.listen.empty()) {
    const auto colon = options.listen.rfind(':');
    const std::string host = options.listen.substr(0, colon == std::string::npos ? 0 : colon);
    if (!host.empty()) environment["SLUICE_HTTP_ADDRESS"] = host;
    environment["SLUICE_HTTP_PORT"] = colon == std::string::npos ? options.listen : options.listen.substr(colon + 1);
  }
  if (!options.grpc_listen.empty()) environment["SLUICE_GRPC_LISTEN"] = options.grpc_listen;
  if (!options.store.empty()) environment["SLUICE_STORE_PATH"] = options.store;
  if (!options.log_level.empty()) environment["SLUICE_LOG_LEVEL"] = options.log_level;
  auto config = server::load_config(options.config, environment);
  if (!config) die(config.error());
  server::ServerParts parts;
  parts.apps = linked_apps();
  parts.first_token = [](const std::string& token) {
    fmt::print("First start. The administrator's token, shown this once:\n  {}\n", token);
    std::fflush(stdout);
  };
  auto opened = server::Server::open(std::move(*config), std::move(parts));
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
  fmt::print("Stopping: what runs may finish within {} ms\n", server.config().grace.count());
  std::fflush(stdout);
  if (const auto stopped = server.stop(); !stopped) die(stopped.error());
}

}  // namespace

void add_serve(CLI::App& app) {
  auto* serve_command = app.add_subcommand("serve", "Runs the server until SIGTERM or Ctrl-C");
  auto options = std::make_shared<ServeOptions>();
  serve_command->add_option("--config", options->config, "TOML file; without one: defaults")
      ->envname("SLUICE_CONFIG");
  serve_command->add_option("--listen", options->listen, "ADDRESS:PORT or PORT; 0: any free port");
  serve_command->add_option("--grpc-listen", options->grpc_listen,
                            "HOST:PORT of the gRPC door; without one there is none");
  serve_command->add_option("--store", options->store, "Path of the database");
  serve_command->add_option("--log-level", options->log_level, "trace, debug, info, warn, error or off");
  serve_command->footer(
      "Options win over SLUICE_* variables, and those over the file.\n"
      "Examples:\n  sluice serve --config sluice.toml\n  sluice serve --listen 127.0.0.1:9000 --store orders.db\n"
      "  sluice serve --grpc-listen 127.0.0.1:9090");
  serve_command->callback([options] { serve(*options); });
}

void add_config(CLI::App& app) {
  auto* config = app.add_subcommand("config", "Checks and shows the configuration");
  config->require_subcommand(1);
  auto path = std::make_shared<std::string>();
  for (const bool show : {false, true}) {
    auto* command = config->add_subcommand(
        show ? "show" : "check", show ? "Prints every key with its value" : "Says what is wrong");
    command->add_option("--config", *path, "TOML file")->envname("SLUICE_CONFIG");
    command->footer(
        fmt::format("Example: sluice config {} --config sluice.toml", show ? "show" : "check"));
    command->callback([path, show] {
      const auto loaded = server::load_config(*path, server::process_environment());
      if (!loaded) die(loaded.error());
      if (show)
        fmt::print("{}", server::show_config(*loaded));
      else
        fmt::print("The configuration is good.\n");
    });
  }
}

}  // namespace sluice::cli
