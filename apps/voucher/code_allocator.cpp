#include "apps/voucher/code_allocator.hpp"

#include <utility>

#include "apps/voucher/rows.hpp"

namespace sluice::voucher {
namespace {

template <class Q>
Result<typename Q::Answer> ask_inline(store::Store& store, Q query) {
  return store::ask_now(store, std::move(query));
}

}  // namespace

Reservation::~Reservation() {
  if (owner_ != nullptr) owner_->end(pool_, ordinal_, CodeAllocator::End::unused);
}

void Reservation::assigned() noexcept {
  if (owner_ != nullptr) std::exchange(owner_, nullptr)->end(pool_, ordinal_, CodeAllocator::End::assigned);
}

void Reservation::unknown() noexcept {
  if (owner_ != nullptr) std::exchange(owner_, nullptr)->end(pool_, ordinal_, CodeAllocator::End::unknown);
}

Result<CodeAllocator::Pool> CodeAllocator::load(const std::string& ns, const std::string& voucher) {
  Pool pool;
  store::GetRows count_query;
  count_query.keys.push_back(pool_key(ns, voucher));
  SLUICE_ASSIGN(const auto counts, ask_inline(store_, std::move(count_query)));
  pool.count = counts[0] ? counts[0]->number : 0;
  if (counts[0]) pool.universal = counts[0]->value;
  if (!pool.universal.empty()) return pool;
  store::ListRows page{ns, std::string(kAssigned), voucher + "/", "", 5000};
  while (true) {
    SLUICE_ASSIGN(const auto items, ask_inline(store_, page));
    for (const auto& item : items) {
      const std::int64_t ordinal = ordinal_of(item.key.key);
      for (; pool.next < ordinal; ++pool.next) pool.free.push_back(pool.next);
      pool.next = ordinal + 1;
    }
    if (items.size() < page.limit) return pool;
    page.after = items.back().key.key;
  }
}

Result<std::shared_ptr<Reservation>> CodeAllocator::reserve(const std::string& ns,
                                                            const std::string& voucher) {
  const std::string name = ns + "/" + voucher;
  const std::scoped_lock lock(mutex_);
  auto found = pools_.find(name);
  if (found == pools_.end()) {
    SLUICE_ASSIGN(Pool loaded, load(ns, voucher));
    found = pools_.emplace(name, std::move(loaded)).first;
  }
  Pool& pool = found->second;
  if (!pool.universal.empty()) return std::make_shared<Reservation>(pool.universal);
  if (pool.free.empty() && pool.next >= pool.count) {
    SLUICE_TRY(settle(pool, ns, voucher));
  }
  std::int64_t ordinal = 0;
  if (!pool.free.empty()) {
    ordinal = pool.free.back();
    pool.free.pop_back();
  } else if (pool.next < pool.count) {
    ordinal = pool.next++;
  } else if (pool.reserved != 0) {
    return fail(Failure(FailureKind::unavailable, std::string(kCodesLeased),
                        "every code of voucher '" + voucher + "' that is left is held; some may come back")
                    .with_retry_after(milliseconds(100)));
  } else {
    return nullptr;
  }
  ++pool.reserved;
  return std::make_shared<Reservation>(*this, name, ordinal);
}

// One that is free as the store says, and is assigned by who was told pending after all, is no harm: the
// assignment that comes second is run again.
Status CodeAllocator::settle(Pool& pool, const std::string& ns, const std::string& voucher) {
  if (pool.unsettled.empty()) return {};
  store::GetRows query;
  for (const auto ordinal : pool.unsettled) query.keys.push_back(assigned_key(ns, voucher, ordinal));
  SLUICE_ASSIGN(const auto rows, ask_inline(store_, std::move(query)));
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (!rows[i]) pool.free.push_back(pool.unsettled[i]);
  pool.unsettled.clear();
  return {};
}

void CodeAllocator::end(const std::string& name, std::int64_t ordinal, End how) {
  const std::scoped_lock lock(mutex_);
  Pool& pool = pools_[name];
  --pool.reserved;
  if (how == End::unused) pool.free.push_back(ordinal);
  if (how == End::unknown) pool.unsettled.push_back(ordinal);
}

}  // namespace sluice::voucher
