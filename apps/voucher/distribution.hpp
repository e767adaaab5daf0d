// The flow of one item of a batch: one voucher for one user, in one Commit over stock, budget,
// quotas, the code's assignment and the event.
#pragma once
#include <memory>

#include "apps/voucher/code_allocator.hpp"
#include "apps/voucher/downstream.hpp"
#include "apps/voucher/model.hpp"
#include "apps/voucher/sold_out.hpp"
#include "sluice/admission/gate.hpp"
#include "sluice/flow.hpp"
#include "sluice/resilience/hot_keys.hpp"

namespace sluice::voucher {

/// What an item asks for. The request of its exchange is its encoding.
struct Item {
  std::string user;
  std::string voucher;
  std::string region;
  Bytes encode() const;
  static Result<Item> decode(ByteView bytes);
};

/// The code of an item that runs: of this store, or of a segment. Of the item's lane. What is in it when it goes
/// may have been assigned, as that of an item told pending: the store is asked before anybody gets it again.
struct HeldCode {
  HeldCode() = default;
  HeldCode(const HeldCode&) = delete;
  HeldCode& operator=(const HeldCode&) = delete;
  ~HeldCode();
  void assigned();
  void unused();
  std::shared_ptr<Reservation> own;
  std::shared_ptr<CodeHold> leased;
  int waits = 0;  // runs in which others held the last codes
};

/// Items per second of one caller. Null: no limit. The first is what bounds a caller, who names what regions he likes;
/// the second is what one region may have of it.
struct CallerLimits {
  resilience::HotKeys* everywhere = nullptr;
  resilience::HotKeys* in_region = nullptr;
};

/// Items of batches that run at once, of live and of shadow traffic each; further batches wait. About what a lane gets
/// through in a quarter of a downstream call's time: behind more of them its answers would come too late, and a healthy
/// service be taken for a dead one. At least one largest batch.
inline constexpr std::size_t kItemsAtOnce = 2'000;

class Distribution {
 public:
  /// All must outlive it. Without a downstream, or without one of its services, codes and users are
  /// those of its own store.
  Distribution(store::Store& store, Clock& clock, IdSource& ids, Downstream* downstream = nullptr,
               CallerLimits limits = {}, Metrics* metrics = nullptr, Logger* log = nullptr);
  /// Stage one, for a batch as a whole: items per second of one caller, over all regions and in this one, shadow
  /// traffic apart. Fails rate_limited with when to come back; nothing is taken of either, and nothing of the batch is run then.
  Status check_rate_limit_availability(const std::string& ns, const std::string& caller, const std::string& region, std::size_t items);
  /// Before the first batch: batches of other regions are refused; none: each region is served.
  void serve_only(std::vector<std::string> regions);
  Status check_region(const std::string& region) const;
  /// Before the first batch: how long its request id, and what its items got, is remembered.
  void keep_for(milliseconds ttl) noexcept { kept_ = ttl; }
  milliseconds kept() const noexcept { return kept_; }
  Downstream* downstream() noexcept { return downstream_; }
  /// Before an item runs: what the calls of its batch fail with, now or later. The answer is for ended(); the
  /// exchange keeps it too, as long as it may take effect.
  static std::shared_ptr<HeldCode> know(flow::Exchange& item, std::shared_ptr<BatchCalls> told);
  bool sold_out(const std::string& ns, const std::string& voucher) const { return sold_out_.has(ns, voucher, clock_.now()); }
  flow::Flow& flow() noexcept { return flow_; }
  /// Where a batch waits until there is room for its items, each a permit.
  admission::Gate& items(bool shadow) noexcept { return shadow ? shadow_items_ : items_; }
  /// More stock and budget for a voucher: {"voucher":ID,"stock":N,"budget_minor":M}. What was sold out is
  /// not, from the commit on.
  flow::Flow& restock() noexcept { return restock_; }
  /// Taken before an item runs, for ended().
  std::uint64_t restocks_seen() const { return sold_out_.mark(); }
  /// To be told how each exchange ended: remembers sold-out vouchers, gives unused codes back.
  void ended(const std::string& ns, const Item& item, HeldCode& code, const flow::Outcome& outcome, std::uint64_t restocks_seen);

 private:
  using Voting = Task<Result<flow::Vote>>;
  Voting check_user_existence(flow::Exchange& x);
  Voting ask_user_existence(flow::Exchange& x);
  Voting load_vouchers(flow::Exchange& x);
  Result<flow::Vote> check_eligibility(flow::Exchange& x);
  Result<flow::Vote> reserve(flow::Exchange& x);
  Result<flow::Vote> distribute(flow::Exchange& x);
  flow::StagePtr restock_stage();
  // item_codes.cpp
  Voting load_codes(flow::Exchange& x);
  Voting ask_codes(flow::Exchange& x);
  template <class Held, class Next>
  Task<Result<std::shared_ptr<Held>>> free_code(flow::Exchange& x, const Voucher& v, std::shared_ptr<Held> code, Next next);
  flow::Vote no_code(flow::Exchange& x, const Voucher& v);
  flow::Vote wait_for_code(flow::Exchange& x, const Voucher& v);

  store::Store& store_;
  Clock& clock_;
  Downstream* const downstream_;
  const CallerLimits limits_;
  std::vector<std::string> regions_;
  milliseconds kept_ = idempotency::KeyPolicy().ttl;
  CodeAllocator codes_;
  SoldOut sold_out_;
  admission::Gate items_, shadow_items_;
  flow::Flow flow_, restock_;
};

}  // namespace sluice::voucher
