// The stage that finds an item its code: of this store, or of a segment that was leased.
#include "apps/voucher/item_bag.hpp"

#include <fmt/format.h>

#include "apps/voucher/rows.hpp"

namespace sluice::voucher {
namespace {

// How often an item waits, a Commit's time each, for codes that others hold, before its caller has to.
constexpr int kMaxWaits = 3;
// Codes in a row that another node of the same store may have assigned before us.
constexpr int kMaxTaken = 64;

using flow::Exchange;
using flow::Vote;

Failure rush() {
  return Failure(FailureKind::overloaded, "code_rush", "others took the codes as fast as they came; try again")
      .with_retry_after(milliseconds(100));
}

}  // namespace

HeldCode::~HeldCode() {
  if (own) own->unknown();
  if (leased) leased->unknown();
}

void HeldCode::assigned() {
  if (own) own->assigned();
  if (leased) leased->assigned();
}

void HeldCode::unused() {
  own.reset();
  leased.reset();
}

// Those before us may hold the last codes and take the last of the stock: which of the two it is, the
// Commit finds out in order. This precondition never holds; the stock's comes first.
Vote Distribution::no_code(Exchange& x, const Voucher& v) {
  x.draft().require(store::KvAtMost{pool_key(x.ns().text(), v.id), -1}, "no_code",
                    refusal("no_code", "voucher '" + v.id + "' has no code left"));
  return Vote::done();
}

// The code that was held before the item was run again, while it is nobody's yet, or the next that is: run again,
// it may be another node's by now, and so may those that come next.
template <class Held, class Next>
Task<Result<std::shared_ptr<Held>>> Distribution::free_code(Exchange& x, const Voucher& v, std::shared_ptr<Held> code, Next next) {
  using Found = Result<std::shared_ptr<Held>>;
  const bool again = code != nullptr;
  for (int i = 0; i < kMaxTaken; ++i) {
    if (!code) {
      auto coming = next();
      Found come = co_await coming;
      if (!come) co_return come;
      code = *std::move(come);
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
  const auto ask = [&] { return downstream_->code(x.ns(), x.get(kItem)->region, v.id, told_of(x)); };
  auto asking = free_code(x, v, std::move((*x.get(kHeld))->leased), ask);
  auto held = co_await asking;
  if (!held && held.error().code() == kCodesLeased) {
    // Who holds the last codes may have taken the last of the stock with them: that is an end, and told as one.
    auto reading = x.read_task(stock_key(x.ns().text(), v.id), flow::Read::verified);
    const auto stock = co_await reading;
    if (stock && (!*stock || (*stock)->number <= 0)) co_return no_code(x, v);
  }
  if (!held) co_return fail(held.error());
  if (!*held) co_return no_code(x, v);
  x.set(kCodeText, (*held)->text());
  x.set(kOrdinal, (*held)->ordinal());
  (*x.get(kHeld))->leased = *std::move(held);
  co_return Vote();
}

// Who holds the last codes may take the last of the stock with them, or give a code back: the Commit comes after
// theirs. This precondition never holds; the stock's comes first, and the item is run again else.
Vote Distribution::wait_for_code(Exchange& x, const Voucher& v) {
  x.draft().guards.push_back({{store::KvAtMost{pool_key(x.ns().text(), v.id), -1}, std::string(kCodesLeased)}, {}, true});
  return Vote::done();
}

Task<Result<Vote>> Distribution::load_codes(Exchange& x) {
  const Voucher& v = *x.get(kVoucher);
  HeldCode& item = **x.get(kHeld);
  const auto take = [&] { return codes_.reserve(x.ns().text(), v.id); };
  auto reserving = free_code(x, v, std::move(item.own), take);
  auto found = co_await reserving;
  if (!found && found.error().code() == kCodesLeased && item.waits++ < kMaxWaits) co_return wait_for_code(x, v);
  if (!found) co_return fail(found.error());
  item.own = *std::move(found);
  if (!item.own) co_return no_code(x, v);
  const std::int64_t ordinal = item.own->ordinal();
  x.set(kOrdinal, ordinal);
  if (ordinal == kUniversalOrdinal) {
    x.set(kCodeText, item.own->universal());
    co_return Vote();
  }
  auto reading = x.read_task(code_key(x.ns().text(), v.id, ordinal));
  const auto row = co_await reading;
  if (!row) co_return fail(row.error());
  if (!*row) {
    Failure damaged(FailureKind::corrupt, "code_row",
                    fmt::format("voucher '{}': code {} of its pool has no row; import the codes again", v.id, ordinal));
    co_return fail(std::move(damaged));
  }
  x.set(kCodeText, (*row)->value);
  co_return Vote();
}

}  // namespace sluice::voucher
