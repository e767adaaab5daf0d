// sluice send --stream: a file of commands over one gRPC stream that goes on after a cut, a crash of
// the server, or Ctrl-C.
#pragma once
#include <CLI/CLI.hpp>
#include <string>

namespace sluice::cli {

struct StreamSendOptions {
  std::string file;     ///< empty: no stream was asked for
  std::string results;  ///< a file of what became of each line; empty: none
  std::string id, order_by, target = "127.0.0.1:9090";
  bool any_order = false, tls = false;
  std::string tls_ca, tls_cert, tls_key, tls_name;
  std::uint64_t window = 10'000;
  std::int64_t give_up_s = 60;
};
/// --stream and what goes with it.
void add_stream_options(CLI::App& command, StreamSendOptions& options);

struct StreamSender {
  std::string command, app, token;
  bool shadow = false, json = false;
};
/// Sends all of it and prints what became of it. Ends the command: status 1 when a message failed or
/// the stream could not go on for good or never began, 4 when it stopped in the middle and can be resumed.
void send_stream_file(const StreamSendOptions& options, const StreamSender& who);

}  // namespace sluice::cli
