// Audits the app's rows: what was issued against stock, codes, quotas and money. Reads only
// durable rows, so it holds after any crash; the demo, the crash campaign and tests all call it.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "sluice/store/store.hpp"

namespace sluice::voucher {

struct Books {
  std::uint64_t vouchers = 0;
  std::uint64_t codes = 0;
  std::uint64_t users = 0;
  std::int64_t stock = 0;   ///< of all vouchers, as imported
  std::int64_t left = 0;    ///< of all vouchers, as the rows say now
  std::int64_t issued = 0;  ///< assignments found
  std::uint64_t sold_out = 0;  ///< vouchers that had stock and have none left
  std::uint64_t events = 0; ///< voucher.distributed events found
  std::vector<std::string> wrong;  ///< each a full sentence; at most kMaxWrong
  static constexpr std::size_t kMaxWrong = 50;
  bool balanced() const noexcept { return wrong.empty(); }
};

/// Blocks. Consistent only while nothing is being distributed. Fails as the store does.
/// `codes`: the store of the code service; null: the same.
Result<Books> audit_books(store::Store& store, const std::string& ns, store::Store* codes = nullptr);

}  // namespace sluice::voucher
