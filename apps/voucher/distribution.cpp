#include "apps/voucher/distribution.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/voucher/rows.hpp"

namespace sluice::voucher {
namespace {

// How often an item waits, a Commit's time each, for codes that others hold, before its caller has to.
constexpr int kMaxWaits = 3;
// Codes in a row that another node of the same store may have assigned before us.
constexpr int kMaxTaken = 64;

constexpr std::int64_t kMaxRestock = 1'000'000'000'000;  // of pieces and of minor units: sums stay far from 2^63

using flow::Exchange;
using flow::Vote;

const flow::BagKey<Item> kItem{"item"};
const flow::BagKey<Voucher> kVoucher{"voucher"};
const flow::BagKey<std::int64_t> kOrdinal{"ordinal"};
const flow::BagKey<std::string> kCodeText{"code_text"};
const flow::BagKey<std::shared_ptr<BatchCalls>> kTold{"told"};

std::shared_ptr<BatchCalls> told(Exchange& x) {
  auto* const found = x.get(kTold);
  return found != nullptr ? *found : nullptr;
}

Reply refusal(std::string code, std::string detail) {
  Reply reply;
  reply.kind = FailureKind::precondition_failed;
  reply.code = std::move(code);
  reply.detail = std::move(detail);
  return reply;
}

// A decline: stored under the item's key like any reply.
Result<Vote> decline(Exchange& x, std::string code, std::string detail) {
  x.respond(refusal(code, std::move(detail)));
  x.abort(std::move(code));
  return Vote::skip();
}

Failure rush() {
  return Failure(FailureKind::overloaded, "code_rush", "others took the codes as fast as they came; try again")
      .with_retry_after(milliseconds(100));
}

flow::FlowOptions options_of(store::Store& store, IdSource& ids, Metrics* metrics, Logger* log) {
  flow::FlowOptions options;
  options.metrics = metrics;
  options.log = log;
  options.store = &store;
  options.ids = &ids;
  return options;
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

bool SoldOut::has(const std::string& ns, const std::string& voucher, Instant now) const {
  const std::scoped_lock lock(mutex_);
  const auto found = until_.find(ns + "/" + voucher);
  return found != until_.end() && now < found->second;
}

std::uint64_t SoldOut::mark() const {
  const std::scoped_lock lock(mutex_);
  return restocks_;
}

// Who was refused by this memory adds nothing to it: another node's restock is seen in time, however many ask.
void SoldOut::add(const std::string& ns, const std::string& voucher, Instant now, std::uint64_t mark) {
  const std::string name = ns + "/" + voucher;
  const std::scoped_lock lock(mutex_);
  if (const auto found = restocked_.find(name); found != restocked_.end() && found->second > mark) return;
  Instant& until = until_[name];
  if (until <= now) until = now + kSoldOutFor;
}

void SoldOut::remove(const std::string& ns, const std::string& voucher) {
  const std::scoped_lock lock(mutex_);
  until_.erase(ns + "/" + voucher);
  restocked_[ns + "/" + voucher] = ++restocks_;
}

Distribution::Distribution(store::Store& store, Clock& clock, IdSource& ids, Downstream* downstream,
                           resilience::HotKeys* rate_limit, Metrics* metrics, Logger* log)
    : clock_(clock), downstream_(downstream), rate_limit_(rate_limit), codes_(store),
      flow_("voucher.distribute", options_of(store, ids, metrics, log)), restock_("voucher.restock", options_of(store, ids, metrics, log)) {
  const auto stage = [this](const char* name, Result<Vote> (Distribution::*method)(Exchange&)) {
    return flow::func(name, [this, method](Exchange& x) { return (this->*method)(x); });
  };
  const auto asking = [this](const char* name, Task<Result<Vote>> (Distribution::*method)(Exchange&)) {
    return flow::task_func(name, [this, method](Exchange& x) { return (this->*method)(x); });
  };
  const bool users = downstream_ != nullptr && downstream_->has_users();
  const bool codes = downstream_ != nullptr && downstream_->has_codes();
  flow_.group("item", {users ? asking("check_user_existence", &Distribution::ask_user_existence)
                             : stage("check_user_existence", &Distribution::check_user_existence),
                       stage("load_vouchers", &Distribution::load_vouchers),
                       stage("check_eligibility", &Distribution::check_eligibility),
                       codes ? asking("load_codes", &Distribution::ask_codes)
                             : stage("load_codes", &Distribution::load_codes),
                       stage("distribute", &Distribution::distribute)});
  flow::Phases restock;
  restock.prepare = [this](Exchange& x) { return restock_voucher(x); };
  restock.commit = [this](Exchange& x) -> Status {
    // What prepare knew is gone by now; the request is not.
    sold_out_.remove(x.ns().text(), nlohmann::json::parse(x.request()).at("voucher").get<std::string>());
    return {};
  };
  restock_.group("main", {flow::phases("restock", flow::Effect::store, std::move(restock))});
}

void Distribution::know(Exchange& item, std::shared_ptr<BatchCalls> told) { item.set(kTold, std::move(told)); }

Result<Vote> Distribution::restock_voucher(Exchange& x) {
  const auto json = nlohmann::json::parse(x.request(), nullptr, false);
  const auto number = [&](const char* name) -> std::int64_t {
    const auto found = json.find(name);
    if (found == json.end()) return 0;
    return found->is_number_integer() && *found >= 0 && *found <= kMaxRestock ? found->get<std::int64_t>() : -1;
  };
  const auto id = json.is_object() ? json.find("voucher") : json.end();
  if (!json.is_object() || id == json.end() || !id->is_string() || number("stock") < 0 || number("budget_minor") < 0)
    return fail(FailureKind::invalid_argument, "bad_restock",
                fmt::format("expected {{\"voucher\":ID,\"stock\":N,\"budget_minor\":M}} with N and M from 0 to {}", kMaxRestock));
  for (const auto& [name, value] : json.items())
    if (name != "voucher" && name != "stock" && name != "budget_minor")
      return fail(FailureKind::invalid_argument, "bad_restock",
                  fmt::format("unknown member {}; there are voucher, stock, budget_minor", nlohmann::json(name).dump()));
  if (!json.contains("stock") && !json.contains("budget_minor"))
    return fail(FailureKind::invalid_argument, "bad_restock", "neither stock nor budget_minor: nothing would be added");
  const std::string& ns = x.ns().text();
  const auto key = voucher_key(ns, id->get<std::string>());
  SLUICE_ASSIGN(const auto row, x.read(key, flow::Read::verified));
  if (!row) return fail(FailureKind::not_found, "unknown_voucher", "no voucher '" + id->get<std::string>() + "'");
  SLUICE_ASSIGN(Voucher voucher, decode_voucher(row->value));
  voucher.stock += number("stock");
  voucher.budget_minor += number("budget_minor");
  x.draft().put(key, encode(voucher));
  x.draft().add(stock_key(ns, voucher.id), number("stock"));
  x.draft().add(budget_key(ns, voucher.id), number("budget_minor"));
  x.respond(Reply::ok(fmt::format(R"({{"voucher":"{}","stock":{},"budget_minor":{}}})", voucher.id, voucher.stock, voucher.budget_minor)));
  return Vote();
}

void Distribution::serve_only(std::vector<std::string> regions) { regions_ = std::move(regions); }

Status Distribution::check_region(const std::string& region) const {
  if (regions_.empty() || std::ranges::find(regions_, region) != regions_.end()) return {};
  return fail(FailureKind::invalid_argument, "unknown_region",
              fmt::format("request.region: expected one of {} (--regions of this service), got \"{}\"", fmt::join(regions_, ", "), region));
}

Status Distribution::check_rate_limit_availability(const std::string& ns, const std::string& caller,
                                                   std::size_t items) {
  if (rate_limit_ == nullptr) return {};
  const Instant now = clock_.now();
  const std::string key = ns + "/" + caller;  // over all regions: a caller names what region he likes
  const auto answer = rate_limit_->try_take(now, key, static_cast<std::uint32_t>(items));
  if (answer.passed) return {};
  Failure refused(FailureKind::rate_limited, "caller_rate_limit",
                  fmt::format("{} items are more than caller '{}' may ask for now: {} are left (--caller-rate); nothing was run",
                              items, caller, rate_limit_->available(now, key)));
  if (answer.wait == resilience::kNoRetryAfter) return fail(std::move(refused));
  return fail(std::move(refused).with_retry_after(std::chrono::ceil<milliseconds>(answer.wait)));
}

// Nobody's turn to decide here: the caller gets an answer of its own item, in time and retryable.
Task<Result<Vote>> Distribution::ask_user_existence(Exchange& x) {
  auto decoded = Item::decode(x.request());
  if (!decoded) co_return fail(decoded.error());
  Item item = *std::move(decoded);
  auto asking = downstream_->user_exists(x.ns(), item.region, item.user, told(x));
  auto exists = co_await asking;
  if (!exists) co_return fail(exists.error());
  if (!*exists) co_return decline(x, "unknown_user", "no user '" + item.user + "'");
  x.set(kItem, std::move(item));
  co_return Vote();
}

Result<Vote> Distribution::check_user_existence(Exchange& x) {
  SLUICE_ASSIGN(Item item, Item::decode(x.request()));
  SLUICE_ASSIGN(const auto user, x.read(user_key(x.ns().text(), item.user)));
  if (!user) return decline(x, "unknown_user", "no user '" + item.user + "'");
  x.set(kItem, std::move(item));
  return Vote();
}

Result<Vote> Distribution::load_vouchers(Exchange& x) {
  const Item& item = *x.get(kItem);
  SLUICE_ASSIGN(const auto row, x.read(voucher_key(x.ns().text(), item.voucher)));
  if (!row) return decline(x, "unknown_voucher", "no voucher '" + item.voucher + "'");
  SLUICE_ASSIGN(Voucher voucher, decode_voucher(row->value));
  x.set(kVoucher, std::move(voucher));
  return Vote();
}

Result<Vote> Distribution::check_eligibility(Exchange& x) {
  const Item& item = *x.get(kItem);
  const Voucher& v = *x.get(kVoucher);
  const WallTime now = clock_.wall();
  if (now < v.from || now >= v.to)
    return decline(x, "outside_window", "voucher '" + v.id + "' is not open now");
  if (v.region != "ALL" && v.region != item.region)
    return decline(x, "wrong_region", "voucher '" + v.id + "' is for " + v.region + ", not " + item.region);
  const std::string& ns = x.ns().text();
  if (sold_out(ns, v.id)) return decline(x, "sold_out", "voucher '" + v.id + "' is sold out");
  flow::Draft& draft = x.draft();
  const auto count_up = [&](store::KvKey key, std::int64_t quota, const char* name, const char* what) {
    draft.require(store::KvAtMost{key, quota - 1}, name, refusal(name, fmt::format("{} of voucher '{}' is used up", what, v.id)));
    draft.add(std::move(key), 1);
  };
  draft.take(stock_key(ns, v.id), 1, "sold_out", refusal("sold_out", "voucher '" + v.id + "' is sold out"));
  draft.take(budget_key(ns, v.id), v.value_minor, "budget_exhausted",
             refusal("budget_exhausted", "the budget of voucher '" + v.id + "' is spent"));
  count_up(user_quota_key(ns, v.id, item.user), v.user_quota, "user_quota", "the user's quota");
  count_up(day_quota_key(ns, v.id, day_of(now)), v.day_quota, "day_quota", "the day's quota");
  return Vote();
}

// Those before us may hold the last codes and take the last of the stock: which of the two it is, the
// Commit finds out in order. This precondition never holds; the stock's comes first.
Vote Distribution::no_code(Exchange& x, const Voucher& v) {
  x.draft().require(store::KvAtMost{pool_key(x.ns().text(), v.id), -1}, "no_code",
                    refusal("no_code", "voucher '" + v.id + "' has no code left"));
  return Vote::done();
}

// As reserve(), of the codes that were leased.
Task<Result<std::shared_ptr<CodeHold>>> Distribution::lease(Exchange& x, const Voucher& v) {
  using Leased = Result<std::shared_ptr<CodeHold>>;
  std::shared_ptr<CodeHold> code;
  {
    const std::scoped_lock lock(mutex_);
    if (const auto found = held_.find(x.id().value); found != held_.end()) code = std::move(found->second.leased);
  }
  const bool again = code != nullptr;
  for (int i = 0; i < kMaxTaken; ++i) {
    if (!code) {
      auto asking = downstream_->code(x.ns(), x.get(kItem)->region, v.id, told(x));
      Leased held = co_await asking;
      if (!held) co_return held;
      code = *std::move(held);
    }
    if (!code || !again || code->ordinal() == kUniversalOrdinal) co_return code;
    auto reading = x.read_task(assigned_key(x.ns().text(), v.id, code->ordinal()), flow::Read::latest);
    const auto row = co_await reading;
    if (!row) co_return fail(row.error());
    if (!*row) co_return code;
    code->assigned();
    code.reset();
  }
  co_return fail(rush());
}

Task<Result<Vote>> Distribution::ask_codes(Exchange& x) {
  const Voucher& v = *x.get(kVoucher);
  auto asking = lease(x, v);
  auto held = co_await asking;
  if (!held && held.error().code() == kCodesLeased) {
    // Who holds the last codes may have taken the last of the stock with them: that is an end, and told as one.
    // What is read has our own taking in it.
    auto reading = x.read_task(stock_key(x.ns().text(), v.id), flow::Read::verified);
    const auto stock = co_await reading;
    if (stock && (!*stock || (*stock)->number < 0)) co_return no_code(x, v);
  }
  if (!held) co_return fail(held.error());
  if (!*held) co_return no_code(x, v);
  x.set(kCodeText, (*held)->text());
  x.set(kOrdinal, (*held)->ordinal());
  const std::scoped_lock lock(mutex_);
  held_[x.id().value].leased = *std::move(held);
  co_return Vote();
}

// Run again, the code may be another node's by now; and so may those that come next.
Result<std::shared_ptr<Reservation>> Distribution::reserve(Exchange& x, const Voucher& v) {
  std::shared_ptr<Reservation> code;
  {
    const std::scoped_lock lock(mutex_);
    if (const auto found = held_.find(x.id().value); found != held_.end()) code = std::move(found->second.own);
  }
  const bool again = code != nullptr;
  for (int i = 0; i < kMaxTaken; ++i) {
    if (!code) {
      SLUICE_ASSIGN(code, codes_.reserve(x.ns().text(), v.id));
    }
    if (!code || !again || code->ordinal() == kUniversalOrdinal) return code;
    SLUICE_ASSIGN(const auto row, x.read(assigned_key(x.ns().text(), v.id, code->ordinal()), flow::Read::latest));
    if (!row) return code;
    code->assigned();
    code.reset();
  }
  return fail(rush());
}

// Who holds the last codes may take the last of the stock with them, or give a code back: the Commit comes after
// theirs. This precondition never holds; the stock's comes first, and the item is run again else.
Vote Distribution::wait_for_code(Exchange& x, const Voucher& v) {
  x.draft().guards.push_back({{store::KvAtMost{pool_key(x.ns().text(), v.id), -1}, std::string(kCodesLeased)}, {}, true});
  return Vote::done();
}

Result<Vote> Distribution::load_codes(Exchange& x) {
  const Voucher& v = *x.get(kVoucher);
  auto found = reserve(x, v);
  if (!found && found.error().code() == kCodesLeased) {
    const std::scoped_lock lock(mutex_);
    if (held_[x.id().value].waits++ < kMaxWaits) return wait_for_code(x, v);
  }
  if (!found) return fail(found.error());
  auto reserved = *std::move(found);
  if (!reserved) return no_code(x, v);
  if (reserved->ordinal() == kUniversalOrdinal) {
    x.set(kCodeText, reserved->universal());
    x.set(kOrdinal, kUniversalOrdinal);
    return Vote();
  }
  SLUICE_ASSIGN(const auto row, x.read(code_key(x.ns().text(), v.id, reserved->ordinal())));
  if (!row)
    return fail(FailureKind::corrupt, "code_row",
                fmt::format("voucher '{}': code {} of its pool has no row; import the codes again", v.id, reserved->ordinal()));
  x.set(kCodeText, row->value);
  x.set(kOrdinal, reserved->ordinal());
  const std::scoped_lock lock(mutex_);
  held_[x.id().value].own = std::move(reserved);
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
  assignment.day = day_of(clock_.wall());
  assignment.value_minor = v.value_minor;
  x.draft().put(assigned, encode(assignment));
  // Ids, codes and currencies are of characters that JSON takes as they are.
  const std::string facts = fmt::format(R"("user":"{}","voucher":"{}","code":"{}","value_minor":{},"currency":"{}")",
                                        item.user, v.id, code, v.value_minor, v.currency);
  x.draft().publish("voucher.distributed", "{" + facts + "}");
  x.respond(Reply::ok("{" + facts + "}"));
  return Vote();
}

void Distribution::ended(const std::string& ns, const Item& item, ExchangeId exchange,
                         const flow::Outcome& outcome, std::uint64_t restocks_seen) {
  if (outcome.reply && outcome.reply->code == "sold_out") sold_out_.add(ns, item.voucher, clock_.now(), restocks_seen);
  Held held;
  {
    const std::scoped_lock lock(mutex_);
    const auto found = held_.find(exchange.value);
    if (found == held_.end()) return;
    held = std::move(found->second);
    held_.erase(found);
  }
  // Only what certainly took no effect comes back.
  if (held.own && outcome.kind == flow::OutcomeKind::committed) return held.own->assigned();
  if (held.own && outcome.kind != flow::OutcomeKind::aborted) held.own->unknown();
  if (held.leased && outcome.kind == flow::OutcomeKind::committed) return held.leased->assigned();
  if (held.leased && outcome.kind != flow::OutcomeKind::aborted) held.leased->unknown();
}

}  // namespace sluice::voucher
