// The exchanges that are not over, in pages, as an operator reads them.
#pragma once
#include "sluice/flow/recovery.hpp"

namespace sluice::flow {

struct OpenQuery {
  std::optional<store::OpenState> state;  ///< none: any
  ExchangeId before;                      ///< older ones alone; 0: from the newest
  std::size_t limit = 100;                ///< of those chosen
  std::function<bool(const store::OpenRow&)> chosen{};  ///< empty: all
};

/// The newest first. Reads every row of that state up to `before`. Blocks.
Result<std::vector<TransactionView>> list_open(store::Store& store, const OpenQuery& query);

}  // namespace sluice::flow
