// The codes a distribution service has at hand: of segments that the code service leased to it. Hands
// each to one exchange at a time. The store has the last word: an assignment is a unique insert.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "apps/voucher/rows.hpp"
#include "sluice/base/task.hpp"
#include "sluice/base/time.hpp"
#include "sluice/store/store.hpp"

namespace sluice::voucher {

class CodeSupply;

/// A code held for one exchange; it comes back on destruction unless it was used.
class CodeHold {
 public:
  CodeHold(CodeSupply& owner, std::string pool, std::int64_t segment, std::int64_t ordinal, std::string text)
      : owner_(&owner), pool_(std::move(pool)), segment_(segment), ordinal_(ordinal), text_(std::move(text)) {}
  /// Of a universal code: everybody may hold it, nothing comes back.
  explicit CodeHold(std::string universal) : segment_(0), ordinal_(kUniversalOrdinal), text_(std::move(universal)) {}
  CodeHold(const CodeHold&) = delete;
  CodeHold& operator=(const CodeHold&) = delete;
  ~CodeHold();
  std::int64_t ordinal() const noexcept { return ordinal_; }
  const std::string& text() const noexcept { return text_; }
  /// It was assigned: never again.
  void assigned() noexcept;
  /// It may have been assigned: when its segment comes again, the store says whether it was.
  void unknown() noexcept;

 private:
  CodeSupply* owner_ = nullptr;
  std::string pool_;
  std::int64_t segment_, ordinal_;
  std::string text_;
};

struct LeasedSegment {
  std::string voucher;
  std::int64_t first = 0;
  std::uint64_t token = 0;
  std::vector<std::string> codes;
};

/// Thread-safe. The store (of the assignments) must outlive it.
class CodeSupply {
 public:
  explicit CodeSupply(store::Store& store) : store_(store) {}

  /// Null: none at hand.
  std::shared_ptr<CodeHold> take(const std::string& ns, const std::string& voucher, Instant now);
  bool has(const std::string& ns, const std::string& voucher, Instant now) const;
  /// A segment came. Codes that are assigned already, as those of an earlier owner may be, are left
  /// out. Not used after `until`, when another service may have it. May be cut off: then nothing came.
  Task<Status> add(std::string ns, LeasedSegment segment, Instant until);
  /// The voucher has one code for all, known until then.
  void add_universal(const std::string& ns, const std::string& voucher, std::string text, Instant until);
  /// Whether the code service is to be told that we resume: nothing came of the voucher yet in this process, or
  /// it had nothing fresh, and may have leased us segments that we do not know of.
  bool resumes(const std::string& ns, const std::string& voucher) const;
  /// The code service has nothing fresh of the voucher.
  void set_dry(const std::string& ns, const std::string& voucher);
  /// Codes of it are leased to us and held, each by an exchange that may give it back, and none is free.
  bool all_held(const std::string& ns, const std::string& voucher) const;
  /// Every code that is left is leased to somebody: until then there is no point in asking again.
  void all_leased(const std::string& ns, const std::string& voucher, Instant until);
  std::optional<Instant> leased_until(const std::string& ns, const std::string& voucher, Instant now) const;

  struct Finished {
    std::string voucher;
    std::int64_t first = 0;
    std::uint64_t token = 0;
  };
  /// Segments whose codes are all assigned, to be told to the code service; each once, unless it comes back.
  std::vector<Finished> take_finished(const std::string& ns, std::size_t limit);
  /// The code service may not have heard of them: they are told again. Twice does no harm.
  void not_told(const std::string& ns, std::vector<Finished> finished);

 private:
  friend class CodeHold;
  struct Segment {
    std::uint64_t token = 0;
    Instant until;
    // Together the codes not known to be assigned; without any the segment is finished.
    std::map<std::int64_t, std::string> free;
    std::set<std::int64_t> held;
    std::map<std::int64_t, std::string> unsettled;  // told pending
    bool finished() const { return free.empty() && held.empty() && unsettled.empty(); }
  };
  struct Pool {
    std::string ns, voucher;
    std::map<std::int64_t, Segment> segments;  // by first ordinal
    bool came = false;                         // a segment, or the universal code
    bool dry = false;                          // nothing fresh when last asked
    Instant leased_until{};
    std::string universal;                     // empty: none
    Instant universal_until{};
  };
  Pool& pool_of(const std::string& ns, const std::string& voucher);
  const Pool* find(const std::string& ns, const std::string& voucher) const;
  void give_back(const std::string& pool, std::int64_t segment, std::int64_t ordinal, std::string text);
  void assigned(const std::string& pool, std::int64_t segment, std::int64_t ordinal);
  void unknown(const std::string& pool, std::int64_t segment, std::int64_t ordinal, std::string text);

  store::Store& store_;
  mutable std::mutex mutex_;
  std::map<std::string, Pool> pools_;  // by namespace and voucher; bounded by the catalogue
  std::map<std::string, std::vector<Finished>> finished_;  // by namespace
};

}  // namespace sluice::voucher
