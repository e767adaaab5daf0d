// GET /v1/transactions: one, or a list, as far as who asks may see them.
#pragma once
#include "sluice/flow/recovery.hpp"
#include "sluice/server/server.hpp"

namespace sluice::server {

/// Thread-safe. All outlive it. Blocks on the store: not on a lane that serves.
class TransactionQueries {
 public:
  TransactionQueries(store::Store& store, const flow::Flows& flows, const rpc::Registry& registry, Clock& clock)
      : store_(store), flows_(flows), registry_(registry), clock_(clock) {}
  /// Responds on the query's lane.
  void answer(const transport::TransactionQuery& query, transport::RespondJson respond) const;

 private:
  Result<flow::TransactionView> look_up(ExchangeId exchange) const;
  store::Store& store_;
  const flow::Flows& flows_;
  const rpc::Registry& registry_;
  Clock& clock_;
};

}  // namespace sluice::server
