// What probes are told of the store, and a line in the log when it stops writing and when it goes on.
#pragma once
#include <atomic>

#include "sluice/base/log.hpp"
#include "sluice/store/store.hpp"

namespace sluice::server {

/// Thread-safe. Both must outlive it.
class StoreWatch {
 public:
  StoreWatch(store::Store& store, Logger& logger) noexcept : store_(store), logger_(logger) {}

  /// For /healthz. A process that cannot write, for now, is alive: to start it again makes no room.
  Status alive() {
    const Status status = store_.health();
    return writes_nothing(status) ? Status{} : status;
  }
  /// For /readyz. Begin and end of a time without writes are a line each.
  Status ready() {
    const Status status = store_.health();
    const bool nothing = writes_nothing(status);
    if (told_.exchange(nothing) != nothing) {
      if (nothing)
        logger_.warn("the store writes nothing now; /readyz is 503 until it does", {{"failure", status.error().to_string()}});
      else
        logger_.warn("the store writes again");
    }
    return status;
  }

 private:
  static bool writes_nothing(const Status& health) {
    return !health && (health.error().code() == "disk_full" || health.error().code() == "store_read_only");
  }
  store::Store& store_;
  Logger& logger_;
  std::atomic<bool> told_{false};
};

}  // namespace sluice::server
