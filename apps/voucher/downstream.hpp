// What the distribution service asks other services: codes and users, each behind a cache, a guard
// and a deadline of its own, so that one that is dead costs its callers a bounded time.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "apps/voucher/code_supply.hpp"
#include "sluice/resilience/cache_aside.hpp"
#include "sluice/rpc/client.hpp"

namespace sluice::voucher {

struct CodesAnswer;

struct DownstreamOptions {
  /// Of segments; unique among the services that ask one code service, kept over restarts. Empty: by the
  /// number of the node on a shared store.
  std::string owner;
  std::string store;                          ///< of the assignments; only it gets segments again that were leased to it
  Duration timeout = milliseconds(500);       ///< of one fetch, retries included
  std::int64_t segment_codes = 200;           ///< asked for at once, per voucher
  /// Every item's code is asked for when it is wanted, as many as items wait, fresh ones; what is at hand, or was told a
  /// moment ago, answers nobody.
  bool bypass_cache = false;
  Duration users_ttl = seconds(60);
  Duration unknown_users_ttl = seconds(5);
};

/// What the items of one batch share: the codes they want next, and what the calls came to where they failed, by
/// user and voucher: its items are told that and ask nobody again. Of one lane.
struct BatchCalls {
  std::set<std::string> wanted;
  std::map<std::string, Failure> users, codes;
  const Failure* of_user(const std::string& id) const { return find(users, id); }
  const Failure* of_code(const std::string& id) const { return find(codes, id); }

 private:
  static const Failure* find(const std::map<std::string, Failure>& all, const std::string& id) {
    const auto found = all.find(id);
    return found == all.end() ? nullptr : &found->second;
  }
};

/// Thread-safe; works on the caller's lane. Everything it is given outlives it, and nobody may be
/// waiting when it goes. Either client may be null: then its service is not asked.
class Downstream {
 public:
  Downstream(CodeSupply& supply, rpc::Client* codes, rpc::Client* users, Clock& clock, Random& random,
             DownstreamOptions options = {});
  ~Downstream();
  Downstream(const Downstream&) = delete;
  Downstream& operator=(const Downstream&) = delete;

  bool has_codes() const noexcept { return codes_ != nullptr; }
  bool has_users() const noexcept { return users_ != nullptr; }

  using Told = std::shared_ptr<BatchCalls>;
  /// A code of the voucher; null: none is left anywhere. Items of a batch that want codes in one turn of the
  /// lane share one call. Fails unavailable `code_service_unavailable` within the timeout or the caller's
  /// deadline, whichever is first; at once where `told` has a failure; and kCodesLeased, with when to come back.
  Task<Result<std::shared_ptr<CodeHold>>> code(Namespace ns, std::string region, std::string voucher, Told told = {});
  /// Fails unavailable `user_service_unavailable`, as soon.
  Task<Result<bool>> user_exists(Namespace ns, std::string region, std::string user, Told told = {});
  /// Asks for the users of a batch, so that its items share one call; what fails stands in `told`.
  Task<void> prefetch_users(Namespace ns, std::string region, std::vector<std::string> users, Told told);
  struct Stats {
    std::uint64_t code_calls = 0;     ///< asked of the code service, or refused by the guard
    std::uint64_t code_calls_refused = 0;  ///< of those, by an open breaker: nothing was sent
    std::uint64_t codes_at_hand = 0;  ///< items whose code was there: of a leased segment, or universal
    std::uint64_t code_waits = 0;     ///< items that waited for one of those calls
    std::uint64_t user_calls = 0;
    std::uint64_t users_asked = 0;  ///< items; those without a call of their own shared one or were remembered
  };
  Stats stats() const;

 private:
  struct Marker {};  // a segment came: its codes are in the supply
  struct PerLane;
  /// A code that is there, or why none can be had now; null: ask. Not `remembered`: of this batch's calls alone.
  Result<std::shared_ptr<CodeHold>> at_hand(const std::string& ns, const std::string& voucher, const Told& told, bool remembered);
  resilience::CacheAside<Marker>::Found found_of(const std::string& ns, const std::string& voucher,
                                                 const CodesAnswer& answer, bool resumed);
  PerLane& here(Lane& lane);
  Task<Result<std::vector<resilience::CacheAside<Marker>::Found>>> fetch_codes(std::vector<std::string> ids);
  Task<Result<std::vector<resilience::CacheAside<bool>::Found>>> fetch_users(std::vector<std::string> ids);
  /// The command of a region: each region has a protector, so that one that fails opens only its own.
  const rpc::RemoteCommand& command(rpc::Client& client, std::string_view name, const std::string& region,
                                    bool read_only, std::shared_ptr<const void> (*decode)(ByteView));

  CodeSupply& supply_;
  rpc::Client* const codes_;
  rpc::Client* const users_;
  Clock& clock_;
  Random& random_;
  const DownstreamOptions options_;
  const std::string run_;  // part of the idempotency keys of this process
  std::atomic<std::uint64_t> asked_{0};
  std::atomic<std::uint64_t> refused_{0}, at_hand_{0}, code_waits_{0}, user_calls_{0}, users_asked_{0};
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<PerLane>> lanes_;
};

}  // namespace sluice::voucher
