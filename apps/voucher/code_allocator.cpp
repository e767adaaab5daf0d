#include "apps/voucher/code_allocator.hpp"

#include <utility>

#include "apps/voucher/rows.hpp"

namespace sluice::voucher {

Reservation::~Reservation() {
  if (owner_ != nullptr) owner_->end(pool_, ordinal_, CodeAllocator::End::unused);
}

void Reservation::assigned() noexcept {
  if (owner_ != nullptr) std::exchange(owner_, nullptr)->end(pool_, ordinal_, CodeAllocator::End::assigned);
}

void Reservation::unknown() noexcept {
  if (owner_ != nullptr) std::exchange(owner_, nullptr)->end(pool_, ordinal_, CodeAllocator::End::unknown);
}

/// A pool that one exchange reads and others wait for. Guarded by the allocator's mutex, but for what a
/// ticket points at, which is its lane's.
struct CodeAllocator::Loading {
  struct Ticket {
    Lane* lane = nullptr;
    LoadingWait* waiter = nullptr;  // null: it has left
  };
  std::vector<std::shared_ptr<Ticket>> waiting;
  bool ended = false;
  std::optional<Failure> failed;
};

/// `FailureKind k = co_await LoadingWait(...)`: none once it has ended, else why the wait was cut short.
class CodeAllocator::LoadingWait final : public Suspension {
 public:
  LoadingWait(CodeAllocator& owner, std::shared_ptr<Loading> loading) : owner_(owner), loading_(std::move(loading)) {}
  ~LoadingWait() override { leave(); }
  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> self) {
    const std::scoped_lock lock(owner_.mutex_);
    if (loading_->ended || !suspend(self)) return false;
    ticket_ = std::make_shared<Loading::Ticket>();
    ticket_->lane = context().lane;
    ticket_->waiter = this;
    loading_->waiting.push_back(ticket_);
    return true;
  }
  FailureKind await_resume() const noexcept { return cancel_kind(); }
  void wake() { finish(); }

 private:
  void on_cancel() noexcept override { leave(); }
  void leave() noexcept {
    if (ticket_) ticket_->waiter = nullptr;
  }
  CodeAllocator& owner_;
  std::shared_ptr<Loading> loading_;
  std::shared_ptr<Loading::Ticket> ticket_;
};

/// Wakes those who wait, also when whoever reads is cut short.
class CodeAllocator::LoadingEnd {
 public:
  LoadingEnd(CodeAllocator& owner, std::string name, std::shared_ptr<Loading> loading)
      : owner_(owner), name_(std::move(name)), loading_(std::move(loading)) {}
  LoadingEnd(const LoadingEnd&) = delete;
  LoadingEnd& operator=(const LoadingEnd&) = delete;
  ~LoadingEnd() {
    std::vector<std::shared_ptr<Loading::Ticket>> waiting;
    {
      const std::scoped_lock lock(owner_.mutex_);
      owner_.loading_.erase(name_);
      loading_->ended = true;
      loading_->failed = std::move(failed);
      waiting = std::move(loading_->waiting);
    }
    for (auto& ticket : waiting) {
      Lane* const lane = ticket->lane;
      lane->post([ticket = std::move(ticket)] {
        if (auto* waiter = std::exchange(ticket->waiter, nullptr)) waiter->wake();
      });
    }
  }
  std::optional<Failure> failed;  ///< told to all of them

 private:
  CodeAllocator& owner_;
  const std::string name_;
  const std::shared_ptr<Loading> loading_;
};

Task<Result<CodeAllocator::Pool>> CodeAllocator::load(std::string ns, std::string voucher) {
  Pool pool;
  store::GetRows count_query;
  count_query.keys.push_back(pool_key(ns, voucher));
  auto counting = store::ask(store_, std::move(count_query));
  const auto counts = co_await counting;
  if (!counts) co_return fail(counts.error());
  if (const auto& row = counts->front()) {
    pool.count = row->number;
    pool.universal = row->value;
  }
  if (!pool.universal.empty()) co_return pool;
  store::ListRows page{ns, std::string(kAssigned), voucher + "/", "", 5000};
  for (;;) {
    auto listing = store::ask(store_, page);
    const auto items = co_await listing;
    if (!items) co_return fail(items.error());
    for (const auto& item : *items) {
      const std::int64_t ordinal = ordinal_of(item.key.key);
      for (; pool.next < ordinal; ++pool.next) pool.free.push_back(pool.next);
      pool.next = ordinal + 1;
    }
    if (items->size() < page.limit) co_return pool;
    page.after = items->back().key.key;
  }
}

Task<CodeAllocator::Reserved> CodeAllocator::reserve(std::string ns, std::string voucher) {
  const std::string name = ns + "/" + voucher;
  for (;;) {
    std::shared_ptr<Loading> others, own;
    bool known = false;
    {
      const std::scoped_lock lock(mutex_);
      if (const auto found = pools_.find(name); found != pools_.end()) {
        known = true;
        if (auto taken = take(found->second, name, voucher)) co_return *std::move(taken);
      } else if (auto& loading = loading_[name]; loading) {
        others = loading;
      } else {
        own = loading = std::make_shared<Loading>();
      }
    }
    if (known) {
      auto settling = settle(ns, voucher);
      const Status settled = co_await settling;
      if (!settled) co_return fail(settled.error());
    } else if (own) {
      LoadingEnd end(*this, name, own);
      auto reading = load(ns, voucher);
      auto loaded = co_await reading;
      if (!loaded) {
        end.failed = loaded.error();
        co_return fail(loaded.error());
      }
      const std::scoped_lock lock(mutex_);
      pools_.emplace(name, *std::move(loaded));
    } else {
      LoadingWait wait(*this, others);
      const FailureKind cut = co_await wait;
      if (cut != FailureKind::none) {
        Failure why(cut, {}, "cancelled while the codes of a voucher were read");
        co_return fail(std::move(why));
      }
      if (others->failed) co_return fail(*others->failed);
    }
  }
}

std::optional<CodeAllocator::Reserved> CodeAllocator::take(Pool& pool, const std::string& name, const std::string& voucher) {
  if (!pool.universal.empty()) return std::make_shared<Reservation>(pool.universal);
  std::int64_t ordinal = 0;
  if (!pool.free.empty()) {
    ordinal = pool.free.back();
    pool.free.pop_back();
  } else if (pool.next < pool.count) {
    ordinal = pool.next++;
  } else if (!pool.unsettled.empty()) {
    return std::nullopt;
  } else if (pool.reserved != 0) {
    return Reserved(fail(Failure(FailureKind::unavailable, std::string(kCodesLeased),
                                 "every code of voucher '" + voucher + "' that is left is held; some may come back")
                             .with_retry_after(milliseconds(100))));
  } else {
    return std::shared_ptr<Reservation>();
  }
  ++pool.reserved;
  return std::make_shared<Reservation>(*this, name, ordinal);
}

// One that is free as the store says, and is assigned by who was told pending after all, is no harm: the
// assignment that comes second is run again. While the store is asked they count as reserved.
Task<Status> CodeAllocator::settle(std::string ns, std::string voucher) {
  const std::string name = ns + "/" + voucher;
  std::vector<std::int64_t> asked;
  {
    const std::scoped_lock lock(mutex_);
    Pool& pool = pools_[name];
    asked = std::exchange(pool.unsettled, {});
    pool.reserved += asked.size();
  }
  if (asked.empty()) co_return Status();  // another one asks
  store::GetRows query;
  for (const auto ordinal : asked) query.keys.push_back(assigned_key(ns, voucher, ordinal));
  auto asking = store::ask(store_, std::move(query));
  const auto rows = co_await asking;
  const std::scoped_lock lock(mutex_);
  Pool& pool = pools_[name];
  pool.reserved -= asked.size();
  for (std::size_t i = 0; i < asked.size(); ++i) {
    if (!rows) pool.unsettled.push_back(asked[i]);
    if (rows && !(*rows)[i]) pool.free.push_back(asked[i]);
  }
  if (!rows) co_return fail(rows.error());
  co_return Status();
}

void CodeAllocator::end(const std::string& name, std::int64_t ordinal, End how) {
  const std::scoped_lock lock(mutex_);
  Pool& pool = pools_[name];
  --pool.reserved;
  if (how == End::unused) pool.free.push_back(ordinal);
  if (how == End::unknown) pool.unsettled.push_back(ordinal);
}

}  // namespace sluice::voucher
