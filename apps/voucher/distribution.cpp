#include "apps/voucher/distribution.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "apps/voucher/item_bag.hpp"
#include "apps/voucher/rows.hpp"

namespace sluice::voucher {
namespace {

using flow::Exchange;
using flow::Vote;

flow::FlowOptions options_of(store::Store& store, IdSource& ids, Metrics* metrics, Logger* log) {
  flow::FlowOptions options;
  options.metrics = metrics;
  options.log = log;
  options.store = &store;
  options.ids = &ids;
  return options;
}

admission::GateOptions room_for_items(const char* name, Metrics* metrics) {
  admission::GateOptions options;
  options.name = name;
  options.capacity = kItemsAtOnce;
  options.metrics = metrics;
  return options;
}

std::unexpected<Failure> too_many(const resilience::RateAnswer& answer, std::string detail) {
  Failure refused(FailureKind::rate_limited, "caller_rate_limit", std::move(detail) + "; nothing was run");
  if (answer.wait == resilience::kNoRetryAfter) return fail(std::move(refused));
  return fail(std::move(refused).with_retry_after(std::chrono::ceil<milliseconds>(answer.wait)));
}

}  // namespace

Bytes Item::encode() const {
  Bytes out;
  ByteWriter writer(out);
  for (const auto* text : {&user, &voucher, &region}) writer.bytes(*text);
  return out;
}

Result<Item> Item::decode(ByteView bytes) {
  ByteReader reader(bytes);
  Item item;
  for (auto* text : {&item.user, &item.voucher, &item.region}) *text = reader.bytes();
  if (!reader.at_end()) return fail(FailureKind::corrupt, "voucher_item", "an item does not decode");
  return item;
}

Distribution::Distribution(store::Store& store, Clock& clock, IdSource& ids, Downstream* downstream,
                           CallerLimits limits, Metrics* metrics, Logger* log)
    : store_(store), clock_(clock), downstream_(downstream), limits_(limits), codes_(store),
      items_(room_for_items("voucher_items", metrics)), shadow_items_(room_for_items("voucher_items_shadow", metrics)),
      flow_("voucher.distribute", options_of(store, ids, metrics, log)), restock_("voucher.restock", options_of(store, ids, metrics, log)) {
  const auto stage = [this](const char* name, Result<Vote> (Distribution::*method)(Exchange&)) {
    return flow::func(name, [this, method](Exchange& x) { return (this->*method)(x); });
  };
  const auto asking = [this](const char* name, Task<Result<Vote>> (Distribution::*method)(Exchange&)) {
    return flow::task_func(name, [this, method](Exchange& x) { return (this->*method)(x); });
  };
  const bool users = downstream_ != nullptr && downstream_->has_users();
  const bool codes = downstream_ != nullptr && downstream_->has_codes();
  flow_.group("item", {asking("check_user_existence", users ? &Distribution::ask_user_existence : &Distribution::check_user_existence),
                       asking("load_vouchers", &Distribution::load_vouchers),
                       stage("check_eligibility", &Distribution::check_eligibility),
                       asking("load_codes", codes ? &Distribution::ask_codes : &Distribution::load_codes),
                       stage("reserve", &Distribution::reserve), stage("distribute", &Distribution::distribute)});
  restock_.group("main", {restock_stage()});
}

std::shared_ptr<HeldCode> Distribution::know(Exchange& item, std::shared_ptr<BatchCalls> told) {
  auto code = std::make_shared<HeldCode>();
  item.set(kTold, std::move(told));
  item.set(kHeld, code);
  return code;
}

void Distribution::serve_only(std::vector<std::string> regions) { regions_ = std::move(regions); }

Status Distribution::check_region(const std::string& region) const {
  if (regions_.empty() || std::ranges::find(regions_, region) != regions_.end()) return {};
  return fail(FailureKind::invalid_argument, "unknown_region",
              fmt::format("request.region: expected one of {} (--regions of this service), got \"{}\"", fmt::join(regions_, ", "), region));
}

Status Distribution::check_rate_limit_availability(const std::string& ns, const std::string& caller, const std::string& region,
                                                   std::size_t items) {
  const Instant now = clock_.now();
  const std::string caller_key = ns + "/" + caller, region_key = caller_key + "/" + region;
  const auto count = static_cast<std::uint32_t>(items);
  resilience::RateAnswer taken;
  if (limits_.in_region != nullptr) {
    taken = limits_.in_region->try_take(now, region_key, count);
    if (!taken.passed)
      return too_many(taken, fmt::format("{} items are more than caller '{}' may ask for in {} now: {} are left (--caller-region-rate)", items,
                                         caller, region, limits_.in_region->available(now, region_key)));
  }
  if (limits_.everywhere == nullptr) return {};
  const auto answer = limits_.everywhere->try_take(now, caller_key, count);
  if (answer.passed) return {};
  if (limits_.in_region != nullptr) limits_.in_region->give_back(region_key, taken);
  return too_many(answer, fmt::format("{} items are more than caller '{}' may ask for now: {} are left (--caller-rate)", items, caller,
                                      limits_.everywhere->available(now, caller_key)));
}

// Nobody's turn to decide here: the caller gets an answer of its own item, in time and retryable.
Task<Result<Vote>> Distribution::ask_user_existence(Exchange& x) {
  auto decoded = Item::decode(x.request());
  if (!decoded) co_return fail(decoded.error());
  Item item = *std::move(decoded);
  auto asking = downstream_->user_exists(x.ns(), item.region, item.user, told_of(x));
  auto exists = co_await asking;
  if (!exists) co_return fail(exists.error());
  if (!*exists) co_return decline(x, "unknown_user", "no user '" + item.user + "'");
  x.set(kItem, std::move(item));
  co_return Vote();
}

Task<Result<Vote>> Distribution::check_user_existence(Exchange& x) {
  auto decoded = Item::decode(x.request());
  if (!decoded) co_return fail(decoded.error());
  Item item = *std::move(decoded);
  auto reading = x.read_task(user_key(x.ns().text(), item.user));
  const auto user = co_await reading;
  if (!user) co_return fail(user.error());
  if (!*user) co_return decline(x, "unknown_user", "no user '" + item.user + "'");
  x.set(kItem, std::move(item));
  co_return Vote();
}

Task<Result<Vote>> Distribution::load_vouchers(Exchange& x) {
  const std::string id = x.get(kItem)->voucher;
  auto reading = x.read_task(voucher_key(x.ns().text(), id));
  const auto row = co_await reading;
  if (!row) co_return fail(row.error());
  if (!*row) co_return decline(x, "unknown_voucher", "no voucher '" + id + "'");
  auto voucher = decode_voucher((*row)->value);
  if (!voucher) co_return fail(voucher.error());
  x.set(kVoucher, *std::move(voucher));
  co_return Vote();
}

Result<Vote> Distribution::check_eligibility(Exchange& x) {
  const Item& item = *x.get(kItem);
  const Voucher& v = *x.get(kVoucher);
  const WallTime now = store_.now();  // whose windows and days all nodes share
  if (now < v.from || now >= v.to)
    return decline(x, "outside_window", "voucher '" + v.id + "' is not open now");
  if (v.region != "ALL" && v.region != item.region)
    return decline(x, "wrong_region", "voucher '" + v.id + "' is for " + v.region + ", not " + item.region);
  const std::string& ns = x.ns().text();
  if (sold_out(ns, v.id)) return decline(x, "sold_out", "voucher '" + v.id + "' is sold out");
  flow::Draft& draft = x.draft();
  const auto spent = [&](const char* name, const char* what) {
    return refusal(name, fmt::format("{} of voucher '{}' is used up", what, v.id));
  };
  // What must hold when it commits, in the order in which it is told; reserve() takes.
  draft.require(store::KvAtLeast{stock_key(ns, v.id), 1}, "sold_out", refusal("sold_out", "voucher '" + v.id + "' is sold out"));
  draft.require(store::KvAtLeast{budget_key(ns, v.id), v.value_minor}, "budget_exhausted",
                refusal("budget_exhausted", "the budget of voucher '" + v.id + "' is spent"));
  draft.require(store::KvAtMost{user_quota_key(ns, v.id, item.user), v.user_quota - 1}, "user_quota", spent("user_quota", "the user's quota"));
  draft.require(store::KvAtMost{day_quota_key(ns, v.id, day_of(now)), v.day_quota - 1}, "day_quota", spent("day_quota", "the day's quota"));
  x.set(kDay, day_of(now));
  return Vote();
}

// Taken by the Commit that issues; what aborts has taken nothing, and its code goes back (ended()).
Result<Vote> Distribution::reserve(Exchange& x) {
  const Voucher& v = *x.get(kVoucher);
  const std::string& ns = x.ns().text();
  flow::Draft& draft = x.draft();
  draft.add(stock_key(ns, v.id), -1);
  draft.add(budget_key(ns, v.id), -v.value_minor);
  draft.add(user_quota_key(ns, v.id, x.get(kItem)->user), 1);
  draft.add(day_quota_key(ns, v.id, *x.get(kDay)), 1);
  return Vote();
}

Result<Vote> Distribution::distribute(Exchange& x) {
  const Item& item = *x.get(kItem);
  const Voucher& v = *x.get(kVoucher);
  const std::string& code = *x.get(kCodeText);
  // Of a universal code each exchange has an assignment of its own; there is nothing to fight for.
  const std::int64_t ordinal = *x.get(kOrdinal);
  const store::KvKey assigned = ordinal == kUniversalOrdinal ? shared_key(x.ns().text(), v.id, x.id().value)
                                                             : assigned_key(x.ns().text(), v.id, ordinal);
  // Taken by another node meanwhile: the item is run again, with another code.
  x.draft().guards.push_back({{store::KvVersionIs{assigned, 0}, "code_taken"}, {}, true});
  Assignment assignment;
  assignment.user = item.user;
  assignment.code = code;
  assignment.exchange = x.id().value;
  assignment.day = *x.get(kDay);  // whose quota it took
  assignment.value_minor = v.value_minor;
  x.draft().put(assigned, encode(assignment));
  // Ids, codes and currencies are of characters that JSON takes as they are.
  const std::string facts = fmt::format(R"("user":"{}","voucher":"{}","code":"{}","value_minor":{},"currency":"{}")",
                                        item.user, v.id, code, v.value_minor, v.currency);
  x.draft().publish("voucher.distributed", "{" + facts + "}");
  x.respond(Reply::ok("{" + facts + "}"));
  return Vote();
}

// Only what certainly took no effect comes back; what is not settled yet stays with its exchange until that is over.
// Who is told what another node's item came to has taken nothing itself, and learns nothing of the stock. Should its
// code be the one that this item got there, the assignment that comes second finds out.
void Distribution::ended(const std::string& ns, const Item& item, HeldCode& code, const flow::Outcome& outcome,
                         std::uint64_t restocks_seen) {
  // By the row: a decline by the memory has another cause, and must not prolong it.
  const bool seen_sold_out = !outcome.replayed && outcome.cause && outcome.cause->code() == "sold_out";
  if (seen_sold_out) sold_out_.add(ns, item.voucher, clock_.now(), restocks_seen);
  if (outcome.kind == flow::OutcomeKind::committed && !outcome.replayed)
    code.assigned();
  else if (outcome.kind == flow::OutcomeKind::committed || outcome.kind == flow::OutcomeKind::aborted)
    code.unused();
}

}  // namespace sluice::voucher
