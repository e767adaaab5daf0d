#include "cli/send_stream.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <span>

#include "cli/client.hpp"
#include "cli/commands.hpp"
#include "cli/json_lines.hpp"
#include "cli/options.hpp"
#include "cli/stream_progress.hpp"
#include "cli/stream_results.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice::cli {
namespace {

using Json = nlohmann::ordered_json;

std::atomic<bool> interrupted{false};
std::atomic<bool> all_sent{false};  // only replies are asked for

// The first Ctrl-C ends in good order; the next one at once. Set again, it looks out for a first one again.
void end_on_interrupt() {
  interrupted.store(false);
  struct sigaction action {};
  action.sa_handler = [](int) {
    const int before = errno;  // of whatever was interrupted
    interrupted.store(true);
    // Only what a signal handler may call. What was sent is answered first, which may take the server a while.
    constexpr std::string_view sending = "\nStopping: what was sent is waited for; Ctrl-C again leaves at once, and the same command goes on.\n";
    constexpr std::string_view asking = "\nStopping: no results are written; the same command asks for the replies again.\n";
    const std::string_view said = all_sent.load() ? asking : sending;
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, said.data(), said.size());
    errno = before;
  };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

Json as_json(const transport::StreamReport& report, const std::string& id, JsonLines& lines) {
  Json failures = Json::array();
  for (const auto& one : report.first_failures)
    failures.push_back({{"line", lines.line_of(one.sequence)},
                        {"sequence", one.sequence},
                        {"class", one.what},
                        {"kind", one.failure.traits().name},
                        {"code", one.failure.code()},
                        {"detail", one.failure.detail()},
                        {"retryable", one.retryable},
                        {"transaction", one.transaction}});
  return {{"id", id},
          {"messages", lines.count()},
          {"done", report.done},
          {"done_before", report.done_before},
          {"succeeded", report.succeeded},
          {"replayed", report.replayed},
          {"failed", Json(report.failed)},
          {"unsettled", report.unsettled},
          {"connections", report.resumed + 1},
          {"complete", report.complete},
          {"first_failures", std::move(failures)}};
}

constexpr std::size_t kMostPrinted = 1000;  // failures

// What is said of several lines is said once.
void print_failures(const transport::StreamReport& report, JsonLines& lines) {
  const std::span all(report.first_failures.data(), std::min(report.first_failures.size(), kMostPrinted));
  const auto words = [](const transport::StreamReport::Failed& one) {
    const auto code = one.failure.code();
    return fmt::format("{}{}: {}", one.failure.traits().name, code.empty() ? std::string() : fmt::format(" ({})", code),
                       one.failure.detail());
  };
  std::map<std::string, std::uint64_t> told;  // how many lines it was said of
  for (const auto& one : all)
    if (one.what != "unsettled") ++told[words(one)];
  for (const auto& one : all) {
    const std::string said = words(one);
    if (one.what == "unsettled") {
      fmt::print("  line {}: {}\n    sluice tx show {}\n", lines.line_of(one.sequence), said, one.transaction);
      continue;
    }
    const std::uint64_t count = std::exchange(told[said], 0);
    if (count == 0) continue;
    fmt::print("  line {}: {}\n", lines.line_of(one.sequence), said);
    if (count > 1) fmt::print("    the same of {} more line{}\n", count - 1, count == 2 ? "" : "s");
  }
}

void print(const transport::StreamReport& report, const std::string& id, JsonLines& lines) {
  std::uint64_t failed = 0;
  for (const auto& [what, count] : report.failed) failed += count;
  fmt::print("{} of {} messages are done: {} succeeded ({} of them were answered before), {} failed{}.\n", report.done,
             lines.count(), report.succeeded, report.replayed, failed,
             report.unsettled == 0 ? std::string() : fmt::format(", {} not settled yet", report.unsettled));
  print_failures(report, lines);
  const std::uint64_t told = std::min<std::uint64_t>(report.first_failures.size(), kMostPrinted);
  if (failed + report.unsettled > told)
    fmt::print("  … and {} more; --results FILE tells what became of each line\n", failed + report.unsettled - told);
  if (failed != 0)
    fmt::print("To try lines again, send those alone, in a file of their own: this file with corrections is a stream of its own, and every\n"
               "line of it runs.\n");
  if (report.done_before >= lines.count())
    fmt::print("All of it was done before; nothing was sent. To send it once more: --id with a name of its own.\n");
  else if (report.done_before != 0)
    fmt::print("Of these, {} were done before and not sent again.\n", report.done_before);
  if (report.resumed != 0) fmt::print("The connection was made {} times.\n", report.resumed + 1);
  if (!report.complete)
    fmt::print("Stopped. The same command goes on from message {}; stream {}.\n", report.done + 1, id);
}

// Names of gRPC's own, as dns:///host:port and unix:path, are left to it.
std::string wrong_target(const std::string& given) {
  const std::string expected = "expected HOST:PORT of the server's gRPC door, got '" + given + "'";
  for (const char* const own : {"dns:", "unix:", "ipv4:", "ipv6:"})
    if (given.starts_with(own)) return {};
  const auto colon = given.rfind(':');
  if (colon == std::string::npos || colon == 0 || given.find('/') != std::string::npos) return expected;
  unsigned port = 0;
  const char* const last = given.data() + given.size();
  const auto [end, error] = std::from_chars(given.data() + colon + 1, last, port);
  return error == std::errc() && end == last && port > 0 && port < 65'536 ? std::string() : expected;
}

// What to look at, by what gRPC says of the connection.
std::string advice(const StreamSendOptions& options, bool tls, std::string_view why) {
  if (why.find("stale_epoch") != std::string_view::npos)
    return "Somebody else sends the same stream. When that has ended, the same command goes on.";
  if (why.find("refused") != std::string_view::npos)
    return fmt::format("Start the server with: sluice serve --grpc-listen {}; then the same command goes on.", options.target);
  if (tls && why.find("andshake") != std::string_view::npos)
    return fmt::format("{} answers, but not TLS that is trusted: does its door speak TLS, and is --tls-ca its authority? "
                       "To a door without TLS: leave --tls out.", options.target);
  return fmt::format("Is {} the server's gRPC door (--grpc-listen)?{} Then the same command goes on.", options.target,
                     tls ? "" : " If it speaks TLS: --tls.");
}

}  // namespace

void add_stream_options(CLI::App& command, StreamSendOptions& options) {
  const char* group = "A file of commands over gRPC";
  auto* stream = command.add_option("--stream", options.file,
                                    "JSON lines: each is NAME's payload, or without NAME an object with name, payload, "
                                    "version, idempotency_key, ordering_key")
                     ->group(group);
  const auto with = [&](CLI::Option* option) { return option->needs(stream)->group(group); };
  from_environment(command, with(command.add_option("--grpc", options.target, "HOST:PORT of the server's gRPC door")
                       ->check(CLI::Validator([](std::string& given) { return wrong_target(given); }, "", "target"))
                       ->capture_default_str()),
                   "SLUICE_GRPC");
  auto* by = with(command.add_option("--order-by", options.order_by,
                          "Field of the payload: lines with the same value take effect in the file's order, others side "
                          "by side; without it all of them in order"));
  with(command.add_flag("--any-order", options.any_order, "No line waits for another"))->excludes(by);
  with(command.add_option("--results", options.results,
                          "File to write: one JSON line for each message that is done, with its outcome and reply"));
  with(command.add_option("--id", options.id, "A name, to send a file once more; with it, as without, the same file goes on and another one begins"));
  with(command.add_option("--window", options.window, "Messages of one call")->check(CLI::Range(1, 1'000'000))->capture_default_str());
  with(command.add_option("--give-up", options.give_up_s, "Seconds without any progress")->check(CLI::Range(1, 86'400))->capture_default_str());
  with(command.add_flag("--tls", options.tls, "Encrypted; the system's authorities unless --tls-ca names others"));
  with(command.add_option("--tls-ca", options.tls_ca, "PEM file of trusted authorities; implies --tls"));
  with(command.add_option("--tls-cert", options.tls_cert, "PEM file shown to the server; with --tls-key"));
  with(command.add_option("--tls-key", options.tls_key, "PEM file"));
  with(command.add_option("--tls-name", options.tls_name, "The name the server's certificate has"));
}

namespace {

[[noreturn]] void not_sent(const StreamSendOptions& options, const transport::StreamClientOptions& how, const Failure& why, bool reached,
                           JsonLines& lines) {
  fmt::print(stderr, "sluice: {}\n", why.to_string());
  for (const auto& [key, value] : why.details()) {
    std::uint64_t sequence = 0;
    if (key == transport::kTooLongMessage && std::from_chars(value.data(), value.data() + value.size(), sequence).ec == std::errc())
      fmt::print(stderr, "  It is line {} of {}.\n", lines.line_of(sequence), options.file);
  }
  if (why.kind() == FailureKind::unauthenticated && how.channel.token.empty())
    fmt::print(stderr, "  No token was given: --token or SLUICE_TOKEN.\n");
  const bool away = why.kind() == FailureKind::unavailable || why.kind() == FailureKind::timeout;
  if (away) fmt::print(stderr, "  {}\n", advice(options, how.channel.tls, why.detail()));
  throw CLI::RuntimeError(away && reached ? kUnknownOutcomeStatus : 1);
}

void write_results(StreamResults& results, const transport::StreamClientOptions& how, transport::StreamReport& report,
                   JsonLines& lines, Clock& clock, bool json) {
  Progress progress(clock, std::min(report.done, lines.count()), Progress::What::results, json);
  const Status written = results.write(how, report, lines, clock, [&](std::uint64_t asked) { progress.tell(asked, asked); });
  progress.end();
  if (written) return;
  fmt::print(stderr, "sluice: {}\n  Nothing is lost: the same command asks for the replies again.\n", written.error().to_string());
  throw CLI::RuntimeError(kUnknownOutcomeStatus);
}

}  // namespace

void send_stream_file(const StreamSendOptions& options, const StreamSender& who) {
  // Known by its content too: under a name used before, the lines of another file would count as done.
  constexpr std::size_t kOfContent = 32;  // hexadecimal digits
  if (!options.id.empty())
    if (const auto good = transport::check_stream_id(options.id + "-" + std::string(kOfContent, '0')); !good) die(good.error());
  auto opened = JsonLines::open(options.file, {who.command, options.order_by, options.any_order});
  if (!opened) die(opened.error());
  JsonLines& lines = **opened;
  RealClock clock;
  Progress progress(clock, lines.count(), Progress::What::sending, who.json);
  transport::StreamClientOptions how;
  how.channel.target = options.target;
  how.channel.token = who.token;
  how.channel.tls = options.tls || !options.tls_ca.empty() || !options.tls_cert.empty();
  how.channel.tls_ca = options.tls_ca;
  how.channel.tls_cert = options.tls_cert;
  how.channel.tls_key = options.tls_key;
  how.channel.tls_server_name = options.tls_name;
  how.id = options.id.empty() ? "file-" + lines.identity() : options.id + "-" + lines.identity().substr(0, kOfContent);
  how.app = who.app;
  how.shadow = who.shadow;
  how.window = options.window;
  std::optional<StreamResults> results;
  if (!options.results.empty()) {
    how.window = std::min(how.window, kWindowToldWhole);
    how.max_failures = lines.count();
    auto made = StreamResults::create(options.results);
    if (!made) die(made.error());
    results.emplace(std::move(*made));
  }
  how.give_up_after = seconds(options.give_up_s);
  how.stop = [] { return interrupted.load(); };
  bool reached = false;
  how.progress = [&](std::uint64_t sent, std::uint64_t done) {
    reached = true;
    progress.tell(sent, done);
  };
  if (!who.json)
    fmt::print(stderr, "{} messages to {}, stream {}; Ctrl-C stops, the same command goes on.\n", lines.count(),
               options.target, how.id);
  end_on_interrupt();
  Parker nobody;
  auto sent = transport::send_stream(how, lines, clock, [&](Duration pause) {
    if (!interrupted.load()) nobody.park(pause);
  });
  progress.end();
  if (!sent) not_sent(options, how, sent.error(), reached, lines);
  all_sent = true;
  if (results) end_on_interrupt();
  if (const Status asked = transport::ask_unsettled(how, lines, *sent); !asked) die(asked.error());
  if (results) write_results(*results, how, *sent, lines, clock, who.json);
  if (who.json)
    fmt::print("{}\n", as_json(*sent, how.id, lines).dump());
  else
    print(*sent, how.id, lines);
  if (!sent->complete) throw CLI::RuntimeError(kUnknownOutcomeStatus);
  if (sent->unsettled != 0) throw CLI::RuntimeError(kUnsettledStatus);
  if (!sent->failed.empty()) throw CLI::RuntimeError(1);
}

}  // namespace sluice::cli
