#include "cli/demo_recovery.hpp"

#include <nlohmann/json.hpp>
#include <string>

#include "bench/http_load.hpp"
#include "bench/report.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice::cli {
namespace {

std::optional<Recovered> ask(std::uint16_t port) {
  std::string body;
  bench::http_drive(
      port, 1,
      [sent = false]() mutable -> std::optional<bench::Outgoing> {
        if (std::exchange(sent, true)) return std::nullopt;
        return bench::Outgoing{0, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"};
      },
      [&](bench::Incoming in) { body = in.body(); });
  const auto json = nlohmann::json::parse(body, nullptr, false);
  if (!json.is_object() || !json.contains("recovery")) return std::nullopt;
  const auto& said = json["recovery"];
  return Recovered{said.value("found", std::uint64_t{0}), said.value("left", std::uint64_t{0}), said.value("in_doubt", std::uint64_t{0}), 0};
}

}  // namespace

std::optional<Recovered> watch_recovery(std::uint16_t port, double seconds) {
  const bench::Stopwatch watch;
  for (;;) {
    auto now = ask(port);
    if (!now) return now;
    now->seconds = watch.wall();
    if (now->left == 0 || now->seconds > seconds) return now;
    Parker().park(milliseconds(5));
  }
}

}  // namespace sluice::cli
