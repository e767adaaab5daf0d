// Hands out ordinals of codes, each to one exchange at a time, so that waiting exchanges do not
// fight for the same code. The store has the last word: an assignment is a unique insert.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "apps/voucher/rows.hpp"
#include "sluice/base/task.hpp"
#include "sluice/store/store.hpp"

namespace sluice::voucher {

class CodeAllocator;

/// A reserved ordinal; given back on destruction unless it was settled otherwise.
class Reservation {
 public:
  Reservation(CodeAllocator& owner, std::string pool, std::int64_t ordinal)
      : owner_(&owner), pool_(std::move(pool)), ordinal_(ordinal) {}
  /// Of a universal code: everybody may hold it, nothing comes back.
  explicit Reservation(std::string universal) : ordinal_(kUniversalOrdinal), universal_(std::move(universal)) {}
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;
  ~Reservation();
  /// kUniversalOrdinal: the code is universal().
  std::int64_t ordinal() const noexcept { return ordinal_; }
  const std::string& universal() const noexcept { return universal_; }
  /// It was assigned, to whomever: it does not come back.
  void assigned() noexcept;
  /// It may have been assigned: the store is asked before anybody gets it again.
  void unknown() noexcept;

 private:
  CodeAllocator* owner_ = nullptr;
  std::string pool_;
  std::int64_t ordinal_;
  std::string universal_;
};

/// Thread-safe; works on the caller's lane and never blocks it.
class CodeAllocator {
 public:
  explicit CodeAllocator(store::Store& store) : store_(store) {}
  /// Null when every imported code is assigned; fails kCodesLeased while the last ones are reserved, as some
  /// may come back. The first call for a voucher reads which of its codes are assigned, and others wait for it, so
  /// codes reserved when a process died are free again.
  Task<Result<std::shared_ptr<Reservation>>> reserve(std::string ns, std::string voucher);

 private:
  friend class Reservation;
  struct Pool {
    std::int64_t next = 0;   // untouched from here on
    std::int64_t count = 0;  // imported
    std::vector<std::int64_t> free;
    std::vector<std::int64_t> unsettled;  // told pending: assigned or free, as the store says
    std::size_t reserved = 0;
    std::string universal;  // empty: each code goes to one exchange
  };
  struct Loading;
  class LoadingWait;
  class LoadingEnd;
  using Reserved = Result<std::shared_ptr<Reservation>>;
  Task<Result<Pool>> load(std::string ns, std::string voucher);
  /// Of a pool that is there. Nothing: its unsettled codes are to be settled first.
  std::optional<Reserved> take(Pool& pool, const std::string& name, const std::string& voucher);
  Task<Status> settle(std::string ns, std::string voucher);
  enum class End { unused, assigned, unknown };
  void end(const std::string& pool, std::int64_t ordinal, End how);

  store::Store& store_;
  std::mutex mutex_;
  std::map<std::string, Pool> pools_;  // by namespace and voucher; bounded by the catalogue
  std::map<std::string, std::shared_ptr<Loading>> loading_;
};

}  // namespace sluice::voucher
