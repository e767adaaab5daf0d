// GET /v1/transactions: one, or a list, as far as who asks may see them.
#pragma once
#include "server/first_answer.hpp"
#include "sluice/flow/recovery.hpp"
#include "sluice/server/server.hpp"

namespace sluice::server {

/// Thread-safe. All outlive it. Blocks on the store, on `reader`: not a lane that serves.
class TransactionQueries {
 public:
  TransactionQueries(store::Store& store, const flow::Flows& flows, const rpc::Registry& registry, Clock& clock, Lane& reader)
      : store_(store), flows_(flows), registry_(registry), clock_(clock), reader_(reader) {}
  /// On the query's lane, where it responds: `timeout` at the query's deadline.
  void answer(const transport::TransactionQuery& query, transport::RespondJson respond);

 private:
  using Waiting = FirstAnswer<Result<std::string>>;
  static bool may_see(const transport::TransactionQuery& query, std::string_view of);
  Result<std::string> one(const transport::TransactionQuery& query) const;
  Result<std::string> list(const transport::TransactionQuery& query) const;
  Result<std::vector<flow::TransactionView>> newest(const transport::TransactionQuery& query) const;
  Result<std::vector<flow::TransactionView>> open(const transport::TransactionQuery& query) const;
  Result<flow::TransactionView> look_up(ExchangeId exchange) const;
  store::Store& store_;
  const flow::Flows& flows_;
  const rpc::Registry& registry_;
  Clock& clock_;
  Lane& reader_;
};

}  // namespace sluice::server
