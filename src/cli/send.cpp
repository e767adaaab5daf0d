// sluice send: one command to a running server, or a file of them.
#include <fmt/format.h>

#include <fstream>
#include <cstdio>
#include <iterator>

#include "cli/client.hpp"
#include "cli/commands.hpp"
#include "cli/send_stream.hpp"

namespace sluice::cli {
namespace {

struct SendOptions : ServerOptions {
  std::string name, body, key, app;
  bool shadow = false;
  StreamSendOptions stream;
};

std::string read_body(const std::string& said) {
  if (said == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  if (!said.starts_with('@')) return said;
  std::ifstream file(said.substr(1), std::ios::binary);
  if (!file)
    die(Failure(FailureKind::invalid_argument, "no_file",
                "cannot read " + said.substr(1) + "; give JSON, @file, or - for standard input"));
  return {std::istreambuf_iterator<char>(file), {}};
}

void send(const SendOptions& options) {
  if (!options.stream.file.empty())
    return send_stream_file(options.stream,
                            {options.name, options.app, options.token, options.shadow, options.json});
  if (options.name.empty()) throw CLI::RequiredError("name");
  Request how;
  how.key = options.key;
  auto& headers = how.headers;
  if (!options.app.empty()) headers.emplace_back("X-Sluice-App", options.app);
  if (options.shadow) headers.emplace_back("X-Sluice-Shadow", "true");
  const HttpAnswer answer =
      http_post(options, "/v1/commands/" + options.name, read_body(options.body), how);
  if (!answer.ok()) refuse(options, answer);
  if (!options.json) {
    std::string head = answer.replayed ? "replayed: this key was answered before, nothing ran again" : "done";
    if (!answer.transaction.empty()) head += "; transaction " + answer.transaction;
    fmt::print(stderr, "{}\n", head);
  }
  fmt::print("{}\n", answer.body);
}

}  // namespace

void add_send(CLI::App& app) {
  auto* command = app.add_subcommand("send", "Sends a command, or a file of them, to a running server and prints what came of it");
  auto options = std::make_shared<SendOptions>();
  command->add_option("name", options->name, "Of the command; GET /v1/commands lists them");
  auto* body = command->add_option("body", options->body, "JSON, @file, or - for standard input; default {}");
  auto* key = command->add_option("--key", options->key, "Idempotency key: with the same one it takes effect once");
  command->add_option("--app", options->app, "Namespace; default: the command's own");
  command->add_flag("--shadow", options->shadow, "As stress-test traffic: touches nothing live");
  add_server_options(*command, *options);
  add_stream_options(*command, options->stream);
  for (auto* alone : {body, key}) alone->excludes(command->get_option("--stream"));
  command->footer(
      "Exit status: 0 done, 1 refused or failed, 2 usage or configuration, 3 accepted and not settled yet,\n"
      "4 no answer: it may have taken effect, repeat it with the same key.\n"
      "Examples:\n"
      "  sluice send kv.add '{\"collection\":\"c\",\"key\":\"k\",\"delta\":1}' --key order-17\n"
      "  sluice send voucher.ss.distribution.batch_distribute_voucher @batch.json --key batch-9\n"
      "  sluice send kv.add --stream rows.jsonl --order-by key --grpc 127.0.0.1:9090");
  command->callback([options] { send(*options); });
}

}  // namespace sluice::cli
