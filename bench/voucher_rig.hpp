// What the voucher bench plays with: servers in processes of their own, each on a store of its own, filled with what is
// for sale.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "apps/voucher/app.hpp"
#include "bench/http_load.hpp"
#include "bench/report.hpp"

namespace sluice::bench {

inline constexpr int kBuyers = 100'000;
/// So many of them, or of codes: of `all` where a round is a second or more, less in a shorter run, which checks and does
/// not measure.
inline std::int64_t as_many(const Options& options, std::int64_t all) {
  return static_cast<std::int64_t>(std::clamp(options.seconds, 0.1, 1.0) * static_cast<double>(all));
}

/// A voucher of the bench and how many codes it has.
struct Offer {
  std::string id;
  std::int64_t stock = 0, codes = 0, user_quota = 1;
};

/// Where a server of the bench answers, and its first token.
struct Address {
  std::uint16_t port = 0, grpc_port = 0;
  char token[128] = {};
};

/// A new store for each server: a file, or with --store a database of its own, dropped when this goes.
class Stores {
 public:
  explicit Stores(const Options& options);
  ~Stores();
  Stores(const Stores&) = delete;
  Stores& operator=(const Stores&) = delete;
  /// The path of a file, or the URL of an empty database.
  std::string make(const std::string& name);
  /// A file beside the stores.
  std::string path(const std::string& name) const { return folder_.path(name); }

 private:
  void run(const std::string& sql) const;
  const WorkFolder folder_;
  const std::string url_;
  std::vector<std::string> databases_;
};

struct Serving {
  std::string store;
  std::vector<Offer> offers;
  bool catalogue = true, codes = true, grpc = false;
  std::string rules = {};  ///< file
};

/// Serves until it is killed; writes its Address to `ready` first. Returns only when it could not start.
int serve_vouchers(const Serving& what, std::unique_ptr<server::App> app, int ready);
/// Throws when the server did not start.
Address wait_for(int fd);

/// Calls to the code service that a shop did not have to make, as rows of the report.
void report_saved(const std::string& name, int callers, const Address& shop, Report& report);

/// The code service hangs for one region, again and again; the other's rate meanwhile is compared with its own before.
void bench_voucher_outage(const Options& options, Report& report, Stores& stores);

}  // namespace sluice::bench
