// What probes are told: of the store, and that the process is about to end. A line in the log when the store stops
// writing and when it goes on.
#pragma once
#include <atomic>

#include "sluice/base/log.hpp"
#include "sluice/base/metrics.hpp"
#include "sluice/store/nodes.hpp"

namespace sluice::server {

/// Thread-safe. All of them must outlive it.
class StoreWatch {
 public:
  StoreWatch(store::Store& store, Logger& logger, Metrics& metrics)
      : store_(store), logger_(logger), metrics_(metrics), writes_(metrics.gauge("sluice_store_writes", "Whether the store writes: 1, or 0 while it cannot")) {
    writes_.set(1);
  }

  /// For /healthz: fails when to start the process again would help. It makes no room and brings no database back; and
  /// on a database that has lost what was acknowledged, a process that knows of it is worth more than one that does not.
  Status alive() {
    const Status status = store_.health();
    if (status || (status.error().kind() == FailureKind::unavailable && !mended_by_a_restart(status.error()))) return {};
    return status;
  }
  /// From now on not ready, so that balancers send what is new elsewhere.
  void leave() noexcept { leaving_ = true; }
  /// For /readyz, and to be looked at now and then. Begin and end of a time without writes are a line each, and so is
  /// that the store has closed itself.
  Status ready() {
    const Status status = store_.health();
    if (closed_itself(status) && !told_closed_.exchange(true))
      logger_.error(mended_by_a_restart(status.error()) ? "the store has closed itself; start the server again"
                                                        : "the store has closed itself; do not start the server again before you know what was lost",
                    {{"failure", status.error().to_string()}});
    writes_.set(status ? 1 : 0);
    if (closed_itself(status)) return status;  // nothing comes back by itself
    const bool nothing = writes_nothing(status);
    if (told_.exchange(nothing) != nothing) {
      if (nothing)
        logger_.warn("the store writes nothing now; /readyz is 503 until it does", {{"failure", status.error().to_string()}});
      else
        logger_.warn("the store writes again");
    }
    if (status && leaving_)
      return fail(Failure(FailureKind::shutting_down, "shutting_down", "this server is stopping; ask another").with_retry_after(seconds(1)));
    return status;
  }

  /// For /metrics: what the store knows of the nodes on its database; nothing of an embedded one.
  void count_nodes() {
    const auto* nodes = store::nodes_of(store_);
    if (nodes == nullptr) return;
    metrics_.gauge("sluice_store_membership_changes", "Times that this node saw another join or took over a dead one").set(static_cast<std::int64_t>(nodes->takeovers()));
    metrics_.gauge("sluice_store_node", "This node's number").set(nodes->node());
    metrics_.gauge("sluice_store_nodes_alive", "Nodes that live, this one among them; 0: it is shut out or cannot ask").set(static_cast<std::int64_t>(nodes->living()));
  }

 private:
  static bool writes_nothing(const Status& health) { return !health && health.error().code() != "store_closed"; }
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
  Metrics& metrics_;
  Gauge& writes_;
  std::atomic<bool> told_{false}, told_closed_{false}, leaving_{false};
};

}  // namespace sluice::server
