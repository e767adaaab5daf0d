#include "apps/voucher/code_allocator.hpp"

#include "apps/voucher/rows.hpp"

namespace sluice::voucher {
namespace {

template <class Q>
Result<typename Q::Answer> ask_inline(store::Store& store, Q query) {
  return store::ask_now(store, std::move(query));
}

}  // namespace

Reservation::~Reservation() {
  if (owner_ != nullptr) owner_->give_back(pool_, ordinal_);
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
  std::int64_t ordinal = 0;
  if (!pool.free.empty()) {
    ordinal = pool.free.back();
    pool.free.pop_back();
  } else if (pool.next < pool.count) {
    ordinal = pool.next++;
  } else {
    return nullptr;
  }
  return std::make_shared<Reservation>(*this, name, ordinal);
}

void CodeAllocator::give_back(const std::string& pool, std::int64_t ordinal) {
  const std::scoped_lock lock(mutex_);
  pools_[pool].free.push_back(ordinal);
}

}  // namespace sluice::voucher
