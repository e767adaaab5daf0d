#include "cli/demo_outage_load.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "apps/voucher/generator.hpp"
#include "bench/report.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kBatch = "voucher.ss.distribution.batch_distribute_voucher";
constexpr int kConnections = 8;  // of each region
constexpr double kPace = 0.1;    // seconds between two batches of a connection of SG
constexpr std::uint64_t kVouchers = 20, kUsers = 2000;  // vouchers of each region

}  // namespace

// Each region has vouchers of its own, so that no codes that one has fetched are at hand for the other. TH, which asks
// as often as it can, asks for one at a time: there are codes for all of it.
bench::Outgoing OutageLoad::request(const std::string& region) {
  const std::lock_guard lock(mutex_);
  const std::uint64_t n = next_++;
  std::uint64_t& next_item = next_item_[region];
  const std::uint64_t first = next_item, end = next_item += region == "SG" ? 4 : 1;
  std::string items;
  for (std::uint64_t i = first; i < end; ++i)
    items += fmt::format(R"({}{{"user":"{}","voucher":"{}"}})", i == first ? "" : ",",
                         voucher::generated_user_id(static_cast<std::int64_t>(i / kVouchers % kUsers)),
                         voucher::generated_voucher_id(static_cast<std::int64_t>(i % kVouchers + (region == "SG" ? 0 : kVouchers))));
  const std::string body = fmt::format(R"({{"request_id":"o-{}","region":"{}","items":[{}]}})", n, region, items);
  return {n, fmt::format(
      "POST /v1/commands/{} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer {}\r\n"
      "Idempotency-Key: o-{}\r\nX-Sluice-Deadline-Ms: {}\r\n{}Content-Length: {}\r\n\r\n{}",
      kBatch, shop_.token(), n, kOutageDeadlineMs, shadow_ ? "X-Sluice-Shadow: true\r\n" : "", body.size(), body)};
}

std::map<std::string, OutageTally> OutageLoad::both_regions(double seconds) {
  std::map<std::string, OutageTally> seen{{"SG", {}}, {"TH", {}}};
  Thread paced("sg", [&, tally = &seen["SG"]] { drive("SG", seconds, kPace, *tally); });
  drive("TH", seconds, 0, seen["TH"]);
  paced.join();
  return seen;
}

void OutageLoad::drive(const std::string& region, double seconds, double every, OutageTally& tally) {
  const bench::Stopwatch watch;
  bench::http_drive(
      shop_.port(), kConnections,
      [&]() -> std::optional<bench::Outgoing> {
        if (watch.wall() > seconds) return std::nullopt;
        return request(region);
      },
      [&](bench::Incoming in) { count(tally, in); }, every);
}

bool OutageLoad::one(const std::string& region) {
  OutageTally tally;
  bool sent = false;
  bench::http_drive(
      shop_.port(), 1,
      [&]() -> std::optional<bench::Outgoing> {
        if (std::exchange(sent, true)) return std::nullopt;
        return request(region);
      },
      [&](bench::Incoming in) { count(tally, in); });
  return tally.issued != 0;
}

void OutageLoad::count(OutageTally& tally, const bench::Incoming& in) {
  if (in.whole.empty()) {
    ++tally.broken;
    return;
  }
  ++tally.batches;
  tally.latency_us.push_back(in.latency_us);
  if (in.latency_us > kOutageDeadlineMs * 1000) ++tally.late;
  const Json json = Json::parse(in.body(), nullptr, false);
  if (!json.is_object() || !json.contains("results")) {
    ++tally.other;
    return;
  }
  for (const auto& one : json["results"]) {
    const std::string reason = one.value("reason", "");
    if (one.value("status", "") == "issued") {
      ++tally.issued;
      const std::lock_guard lock(mutex_);
      if (!shadow_ && !codes_seen_.insert(one.value("code", "")).second) wrong("a code was given twice: " + one.dump());
    } else if (reason == "code_service_unavailable") {
      ++tally.unavailable;
      const std::lock_guard lock(mutex_);
      if (!one.value("retryable", false)) wrong("code_service_unavailable was not called retryable");
    } else {
      ++tally.other;
    }
  }
}

void OutageLoad::wrong(std::string text) {
  if (problems_.size() < 20) problems_.push_back(std::move(text));
}

}  // namespace sluice::cli
