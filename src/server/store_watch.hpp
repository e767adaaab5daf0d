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

  /// For /healthz: fails when to start the process again would help. It makes no room and brings no database back; and
  /// on a database that has lost what was acknowledged, a process that knows of it is worth more than one that does not.
  Status alive() {
    const Status status = store_.health();
    if (status || (status.error().kind() == FailureKind::unavailable && !mended_by_a_restart(status.error()))) return {};
    return status;
  }
  /// For /readyz, and to be looked at now and then. Begin and end of a time without writes are a line each, and so is
  /// that the store has closed itself.
  Status ready() {
    const Status status = store_.health();
    if (closed_itself(status) && !told_closed_.exchange(true))
      logger_.error(mended_by_a_restart(status.error()) ? "the store has closed itself; start the server again"
                                                        : "the store has closed itself; do not start the server again before you know what was lost",
                    {{"failure", status.error().to_string()}});
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
    return !health && !closed_itself(health) && health.error().code() != "store_closed";
  }
  static bool mended_by_a_restart(const Failure& why) {
    return why.code() == "store_failed" || why.code() == "store_closed" || why.code() == "node_number_taken" ||
           why.code() == "schema_too_new";
  }
  static bool closed_itself(const Status& health) {
    return !health && (health.error().code() == "database_went_back" || health.error().code() == "store_failed" ||
                       health.error().code() == "node_number_taken" || health.error().code() == "schema_too_new");
  }
  store::Store& store_;
  Logger& logger_;
  std::atomic<bool> told_{false}, told_closed_{false};
};

}  // namespace sluice::server
