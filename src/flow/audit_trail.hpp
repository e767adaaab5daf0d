// What the audit rows tell of transactions that leave no journal.
#pragma once
#include <functional>
#include <optional>
#include <vector>

#include "sluice/flow/recovery.hpp"

namespace sluice::flow {

/// Rows of distinct runs with a smaller exchange, newest written first. Blocks.
Result<std::vector<store::AuditRow>> audits_before(store::Store& store, ExchangeId before, std::size_t limit,
                                                   const std::function<bool(const store::AuditRow&)>& listed);
TransactionView view_of(const store::AuditRow& row);

}  // namespace sluice::flow
