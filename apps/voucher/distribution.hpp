// The flow of one item of a batch: one voucher for one user, in one Commit over stock, budget,
// quotas, the code's assignment and the event.
#pragma once
#include <set>
#include <unordered_map>

#include "apps/voucher/code_allocator.hpp"
#include "apps/voucher/model.hpp"
#include "sluice/flow.hpp"

namespace sluice::voucher {

/// What an item asks for. The request of its exchange is its encoding.
struct Item {
  std::string user;
  std::string voucher;
  std::string region;
  Bytes encode() const;
  static Result<Item> decode(ByteView bytes);
};

/// Remembers vouchers seen sold out, so that further requests do not touch the hot row. Bounded by
/// the catalogue. Thread-safe.
class SoldOut {
 public:
  bool has(const std::string& ns, const std::string& voucher) const;
  void add(const std::string& ns, const std::string& voucher);

 private:
  mutable std::mutex mutex_;
  std::set<std::string> seen_;
};

class Distribution {
 public:
  /// All must outlive it.
  Distribution(store::Store& store, Clock& clock, IdSource& ids);
  flow::Flow& flow() noexcept { return flow_; }
  /// To be told how each exchange ended: remembers sold-out vouchers, gives unused codes back.
  void ended(const std::string& ns, const Item& item, ExchangeId exchange, const flow::Outcome& outcome);

 private:
  Result<flow::Vote> check_user_existence(flow::Exchange& x);
  Result<flow::Vote> load_vouchers(flow::Exchange& x);
  Result<flow::Vote> check_eligibility(flow::Exchange& x);
  Result<flow::Vote> load_codes(flow::Exchange& x);
  Result<flow::Vote> distribute(flow::Exchange& x);

  Clock& clock_;
  CodeAllocator codes_;
  SoldOut sold_out_;
  std::mutex mutex_;
  std::unordered_map<std::uint64_t, std::shared_ptr<Reservation>> held_;  // by running exchange
  flow::Flow flow_;
};

}  // namespace sluice::voucher
