#include "apps/voucher/downstream.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/voucher/answers.hpp"
#include "apps/voucher/code_service.hpp"
#include "apps/voucher/user_service.hpp"

namespace sluice::voucher {
namespace {

using Json = nlohmann::json;

// What a caller is told to wait for codes that are leased: a lease may end early, or be minutes long.
constexpr milliseconds kComeBackSoonest{100};
constexpr milliseconds kComeBackLatest = seconds(10);
// How long nobody asks again for codes that are all leased.
constexpr Duration kLeasedFor = seconds(1);

// Ids of the caches: "namespace|region|id". None of the parts may hold the bar.
std::string cache_id(const Namespace& ns, const std::string& region, const std::string& id) {
  return ns.text() + "|" + region + "|" + id;
}
struct Parts {
  std::string ns, region, id;
};
Parts parts_of(const std::string& id) {
  const auto first = id.find('|'), second = id.find('|', first + 1);
  return {id.substr(0, first), id.substr(first + 1, second - first - 1), id.substr(second + 1)};
}

Failure garbage(std::string_view who) {
  return {FailureKind::unavailable, "bad_answer", std::string(who) + " answered what is no answer to the question"};
}

// Somebody may give some back, or his lease ends: worth another try, and no refusal.
Failure all_leased(const std::string& voucher, Duration until) {
  const auto after = std::clamp(std::chrono::ceil<milliseconds>(until), kComeBackSoonest, kComeBackLatest);
  return Failure(FailureKind::unavailable, std::string(kCodesLeased),
                 "every code of voucher '" + voucher + "' that is left is leased or held; some may come back")
      .with_retry_after(after);
}

Failure unreachable(std::string_view code, const Failure& why) {
  if (why.code() == kCodesLeased) return why;
  Failure failure(FailureKind::unavailable, std::string(code), why.to_string());
  return std::move(failure).with_retry_after(why.retry_after().value_or(seconds(1)));
}

constexpr std::size_t kMaxFinishedPerCall = 100;
// Of one call: an answer of these reads and travels well within its time and a message's size.
constexpr std::int64_t kMaxCodesPerCall = 10'000;

/// One who waits, counted while this lives.
class Counted {
 public:
  Counted(std::map<std::string, std::int64_t>& all, std::string id) : all_(all), id_(std::move(id)) { ++all_[id_]; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() {
    const auto found = all_.find(id_);
    if (--found->second == 0) all_.erase(found);
  }

 private:
  std::map<std::string, std::int64_t>& all_;
  const std::string id_;
};

/// Lets whatever else is ready on this lane run before the waiter goes on.
class NextTurn final : public Suspension {
 public:
  ~NextTurn() override { forget(); }
  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> self) {
    if (!suspend(self)) return false;
    waiting_ = std::make_shared<NextTurn*>(this);
    context().lane->post([waiting = waiting_] {
      if (*waiting != nullptr) (*waiting)->finish();
    });
    return true;
  }
  FailureKind await_resume() const noexcept { return cancel_kind(); }

 private:
  void on_cancel() noexcept override { forget(); }
  void forget() noexcept {
    if (waiting_) *waiting_ = nullptr;
  }
  std::shared_ptr<NextTurn*> waiting_;
};

}  // namespace

struct Downstream::PerLane {
  PerLane(Downstream& self, Lane& on)
      : lane(on),
        codes(on, self.random_, [&self](std::vector<std::string> ids) { return self.fetch_codes(std::move(ids)); },
              code_options(self.options_)),
        users(on, self.random_, [&self](std::vector<std::string> ids) { return self.fetch_users(std::move(ids)); },
              user_options(self.options_)) {}
  // Of one namespace and region: one that hangs leaves the others their fetches.
  static std::string group_of(const std::string& id) { return id.substr(0, id.rfind('|')); }
  static resilience::CacheAsideOptions code_options(const DownstreamOptions& options) {
    resilience::CacheAsideOptions out;
    out.ttl = Duration::zero();  // the supply is what is remembered; this joins those who come together
    out.absent_ttl = options.bypass_cache ? Duration::zero() : seconds(1);
    out.flight_group = &group_of;
    out.flight_deadline = options.timeout;
    return out;
  }
  static resilience::CacheAsideOptions user_options(const DownstreamOptions& options) {
    resilience::CacheAsideOptions out;
    out.max_entries = 100'000;
    out.flight_group = &group_of;
    out.ttl = options.users_ttl;
    out.absent_ttl = options.unknown_users_ttl;
    out.stale = options.users_ttl;
    out.flight_deadline = options.timeout;
    return out;
  }
  Lane& lane;
  std::map<std::string, std::int64_t> waiting;  // items that wait for codes, by cache id; where the cache is bypassed
  resilience::CacheAside<Marker> codes;
  resilience::CacheAside<bool> users;
};

Downstream::Downstream(CodeSupply& supply, rpc::Client* codes, rpc::Client* users, Clock& clock, Random& random,
                       DownstreamOptions options)
    : supply_(supply),
      codes_(codes),
      users_(users),
      clock_(clock),
      random_(random),
      options_(std::move(options)),
      run_(fmt::format("{}-{:016x}", options_.owner, random.next())) {}
Downstream::~Downstream() = default;

Downstream::PerLane& Downstream::here(Lane& lane) {
  const std::lock_guard lock(mutex_);
  for (auto& one : lanes_)
    if (&one->lane == &lane) return *one;
  lanes_.push_back(std::make_unique<PerLane>(*this, lane));
  return *lanes_.back();
}

const rpc::RemoteCommand& Downstream::command(rpc::Client& client, std::string_view name, const std::string& region,
                                              bool read_only, std::shared_ptr<const void> (*decode)(ByteView)) {
  rpc::RemoteCommand command;
  command.decode = decode;
  command.name = std::string(name) + "." + region;
  command.callee = name;
  command.read_only = read_only;
  return client.add(std::move(command));
}

Result<std::shared_ptr<CodeHold>> Downstream::at_hand(const std::string& ns, const std::string& voucher, const Told& told,
                                                      bool remembered) {
  const Instant now = clock_.now();
  if (remembered)
    if (auto hold = supply_.take(ns, voucher, now)) return hold;
  if (const Failure* known = told ? told->of_code(voucher) : nullptr) return fail(unreachable("code_service_unavailable", *known));
  if (const auto until = supply_.leased_until(ns, voucher, now); until && remembered) return fail(all_leased(voucher, *until - now));
  return std::shared_ptr<CodeHold>();
}

Task<Result<std::shared_ptr<CodeHold>>> Downstream::code(Namespace ns, std::string region, std::string voucher, Told told) {
  using Answer = Result<std::shared_ptr<CodeHold>>;
  TaskContext& context = co_await current_context();
  PerLane& lane = here(*context.lane);
  std::optional<Counted> waits;
  if (options_.bypass_cache) waits.emplace(lane.waiting, cache_id(ns, region, voucher));
  // Others on this lane may take what a fetch brought: a few rounds, then it is a rush too large.
  for (int round = 0; round <= 8; ++round) {
    // Past the cache, what came since it was asked for this item; one of its batch may have asked for both.
    const bool asked = round > 1 || (round == 1 && told && !told->wanted.contains(voucher));
    Answer known = at_hand(ns.text(), voucher, told, asked || !options_.bypass_cache);
    if (!known || *known) {
      if (known && round == 0) at_hand_.fetch_add(1, std::memory_order_relaxed);
      co_return known;
    }
    if (round == 0) {
      code_waits_.fetch_add(1, std::memory_order_relaxed);
      // The other items of the batch that come as far say what they want too; then one call asks for all of it.
      if (told) told->wanted.insert(voucher);
      NextTurn others;
      const FailureKind cut = co_await others;
      if (cut != FailureKind::none) {
        Failure why(cut, {}, "cancelled before the codes were asked for");
        co_return fail(std::move(why));
      }
      continue;
    }
    std::vector<std::string> wanted{voucher};
    if (told)
      for (const auto& other : std::exchange(told->wanted, {}))
        if (other != voucher && (options_.bypass_cache || !supply_.has(ns.text(), other, clock_.now()))) wanted.push_back(other);
    std::vector<std::string> ids;
    for (const auto& one : wanted) ids.push_back(cache_id(ns, region, one));
    auto asking = lane.codes.get(std::move(ids));
    const auto found = co_await asking;
    if (told)
      for (std::size_t i = 0; i < wanted.size(); ++i)
        if (!found[i]) told->codes.emplace(wanted[i], found[i].error());
    if (!found[0]) {
      Failure why = unreachable("code_service_unavailable", found[0].error());
      co_return fail(std::move(why));
    }
    if (!*found[0]) co_return std::shared_ptr<CodeHold>();
  }
  Failure rush(FailureKind::overloaded, "code_rush", "others took the codes as fast as they came; try again");
  co_return fail(std::move(rush).with_retry_after(milliseconds(100)));
}

Task<Result<bool>> Downstream::user_exists(Namespace ns, std::string region, std::string user, Told told) {
  TaskContext& context = co_await current_context();
  users_asked_.fetch_add(1, std::memory_order_relaxed);
  if (const Failure* known = told ? told->of_user(user) : nullptr) {
    Failure why = unreachable("user_service_unavailable", *known);
    co_return fail(std::move(why));
  }
  std::vector<std::string> ids;
  ids.push_back(cache_id(ns, region, user));
  auto asking = here(*context.lane).users.get(std::move(ids));
  auto found = co_await asking;
  if (!found[0]) {
    Failure why = unreachable("user_service_unavailable", found[0].error());
    co_return fail(std::move(why));
  }
  co_return found[0]->has_value();
}

Task<void> Downstream::prefetch_users(Namespace ns, std::string region, std::vector<std::string> users, Told told) {
  TaskContext& context = co_await current_context();
  if (users.empty()) co_return;
  std::vector<std::string> ids;
  for (const auto& user : users) ids.push_back(cache_id(ns, region, user));
  auto asking = here(*context.lane).users.get(std::move(ids));
  const auto found = co_await asking;
  for (std::size_t i = 0; i < users.size(); ++i)
    if (!found[i]) told->users.emplace(users[i], found[i].error());
}

Task<Result<std::vector<resilience::CacheAside<Downstream::Marker>::Found>>> Downstream::fetch_codes(
    std::vector<std::string> ids) {
  using Found = resilience::CacheAside<Marker>::Found;
  TaskContext& context = co_await current_context();
  // All ids of one flight come from one batch or one item: one namespace and one region.
  const Parts common = parts_of(ids.front());
  Json vouchers = Json::array(), resumed = Json::array(), finished = Json::array();
  std::set<std::string> asked;
  const bool bypass = options_.bypass_cache;
  bool resume = false;
  std::int64_t count = bypass ? 1 : options_.segment_codes;
  const auto& waiting = here(*context.lane).waiting;
  for (const auto& id : ids) {
    const Parts parts = parts_of(id);
    vouchers.push_back(parts.id);
    asked.insert(parts.id);
    resume = resume || (!bypass && supply_.resumes(parts.ns, parts.id));
    if (const auto found = waiting.find(id); found != waiting.end()) count = std::max(count, found->second);
  }
  auto told = supply_.take_finished(common.ns, std::min(kMaxFinishedPerCall, kMaxVouchersPerCall - ids.size()));
  for (const auto& one : told)
    finished.push_back({{"voucher", one.voucher}, {"first", one.first}, {"token", one.token}});
  count = std::clamp<std::int64_t>(kMaxCodesPerCall / std::ssize(ids), 1, count);
  Json body{{"owner", options_.owner}, {"store", options_.store},  {"region", common.region}, {"vouchers", vouchers},
                  {"count", count},           {"resume", resume},         {"finished", finished}};
  if (bypass) body["bypass_cache"] = true;  // else left out: an older code service does not know it
  rpc::CallContext call;
  call.ns = Namespace::parse(common.ns).value_or(Namespace("voucher"));
  call.idempotency_key = fmt::format("{}-{}", run_, asked_.fetch_add(1, std::memory_order_relaxed));
  const Instant asked_at = clock_.now();
  auto calling = codes_->call(command(*codes_, kGetCodes, common.region, false, &CodesAnswer::decode), std::move(call), body.dump());
  auto response = co_await calling;
  if (!response) {
    if (response.error().code() == "blocked_by_breaker") refused_.fetch_add(1, std::memory_order_relaxed);
    supply_.not_told(common.ns, std::move(told));
    co_return fail(response.error());
  }
  const auto answer = std::static_pointer_cast<const CodesAnswer>(response->message);
  // Whatever is wired around the call: codes of a voucher that nobody asked for may be another's.
  if (asked != answer->named) {
    Failure wrong = garbage("the code service");
    co_return fail(std::move(wrong));
  }
  // A tenth of the lease is kept back: the clocks of two machines do not run alike.
  const Instant until = asked_at + Duration(answer->lease) * 9 / 10;
  for (const auto& [voucher, text] : answer->universal) supply_.add_universal(common.ns, voucher, text, until);
  for (LeasedSegment segment : answer->segments) {
    auto adding = supply_.add(common.ns, std::move(segment), until);
    const Status added = co_await adding;
    if (!added) co_return fail(added.error());
  }
  std::vector<Found> answers;
  for (const auto& id : ids) answers.push_back(found_of(common.ns, parts_of(id).id, *answer, resume || bypass));
  co_return answers;
}

// Nothing fresh is left of a voucher: what is leased to us already may be what we do not know of, so the next
// call resumes. Only when that brought nothing either is it somebody's who may give it back.
resilience::CacheAside<Downstream::Marker>::Found Downstream::found_of(const std::string& ns, const std::string& voucher,
                                                                       const CodesAnswer& answer, bool resumed) {
  if (answer.none.contains(voucher)) return std::optional<Marker>();
  const auto leased = answer.leased.find(voucher);
  const bool none = leased != answer.leased.end();
  if (none && !resumed) supply_.set_dry(ns, voucher);
  if (options_.bypass_cache && supply_.has(ns, voucher, clock_.now())) return std::optional<Marker>(Marker{});  // given back
  if (!resumed || (!none && !supply_.all_held(ns, voucher))) return std::optional<Marker>(Marker{});
  const Duration left = none ? Duration(leased->second) : kLeasedFor;
  supply_.all_leased(ns, voucher, clock_.now() + std::min(left, kLeasedFor));
  return fail(all_leased(voucher, left));
}

Task<Result<std::vector<resilience::CacheAside<bool>::Found>>> Downstream::fetch_users(std::vector<std::string> ids) {
  using Found = resilience::CacheAside<bool>::Found;
  const Parts common = parts_of(ids.front());
  Json users = Json::array();
  for (const auto& id : ids) users.push_back(parts_of(id).id);
  const Json body{{"region", common.region}, {"users", users}};
  user_calls_.fetch_add(1, std::memory_order_relaxed);
  rpc::CallContext call;
  call.ns = Namespace::parse(common.ns).value_or(Namespace("voucher"));
  auto calling = users_->call(command(*users_, kUserExists, common.region, true, &UsersAnswer::decode), std::move(call), body.dump());
  auto response = co_await calling;
  if (!response) co_return fail(response.error());
  const auto answer = std::static_pointer_cast<const UsersAnswer>(response->message);
  Failure wrong = garbage("the user service");
  if (answer->exists.size() != ids.size()) co_return fail(std::move(wrong));
  std::vector<Found> answers;
  for (const bool exists : answer->exists) answers.emplace_back(exists ? std::optional<bool>(true) : std::nullopt);
  co_return answers;
}

Downstream::Stats Downstream::stats() const {
  const auto now = [](const std::atomic<std::uint64_t>& one) { return one.load(std::memory_order_relaxed); };
  return {now(asked_), now(refused_), now(at_hand_), now(code_waits_), now(user_calls_), now(users_asked_)};
}

}  // namespace sluice::voucher
