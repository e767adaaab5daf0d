// The clients of the outage: batches for two regions, each with clients, vouchers and codes of its own.
#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "bench/http_load.hpp"
#include "cli/demo_server.hpp"

namespace sluice::cli {

inline constexpr int kOutageDeadlineMs = 1000;  // of each batch

/// What came back in one phase, for one region.
struct OutageTally {
  std::uint64_t batches = 0, issued = 0, unavailable = 0, other = 0, late = 0, broken = 0;
  std::vector<double> latency_us;
};

class OutageLoad {
 public:
  explicit OutageLoad(const DemoServer& shop) : shop_(shop) {}
  /// SG at a pace, the same whatever becomes of it; TH as fast as it is answered. So what TH gets is not more
  /// for SG's being slow.
  std::map<std::string, OutageTally> both_regions(double seconds);
  /// One batch; whether anything of it was issued.
  bool one(const std::string& region);
  void shadow(bool on) { shadow_ = on; }
  /// Different codes that were told, of live traffic.
  std::size_t codes_seen() const { return codes_seen_.size(); }
  /// Answers that must not be, each a sentence.
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  bench::Outgoing request(const std::string& region);
  void drive(const std::string& region, double seconds, double every, OutageTally& tally);
  void count(OutageTally& tally, const bench::Incoming& in);
  void wrong(std::string text);

  const DemoServer& shop_;
  bool shadow_ = false;
  std::mutex mutex_;
  std::uint64_t next_ = 1;
  std::map<std::string, std::uint64_t> next_item_;
  std::set<std::string> codes_seen_;
  std::vector<std::string> problems_;
};

}  // namespace sluice::cli
