// A cache beside a dependency, asked for many ids at once. What is missing is fetched once however
// many callers wait for it; what was found absent is remembered too; what is a little too old is
// given at once and fetched again behind the caller's back, but not what was absent. For one lane: each lane has its own,
// and so has shadow traffic.
#pragma once
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "sluice/base/bounded_cache.hpp"
#include "sluice/base/random.hpp"
#include "sluice/base/task.hpp"
#include "sluice/resilience/attempt.hpp"

namespace sluice::resilience {

struct CacheAsideOptions {
  std::size_t max_entries = 10'000;
  Duration ttl = seconds(60);
  Duration absent_ttl = seconds(5);  ///< of ids that the dependency does not know; zero: not kept
  double jitter = 0.1;  ///< shortens each of the above by up to this part: no herd at expiry
  Duration stale = Duration::zero();  ///< past its ttl a value is still given, for so long; absence is not
  std::size_t max_flights = 100;      ///< fetches at once, of each group; past it, missing ids fail overloaded
  /// Whom an id is fetched from, so that one who hangs takes no fetches from others. The ids of one get() are of
  /// one group. Empty: one group for all.
  std::function<std::string(const std::string& id)> flight_group = {};
  Duration flight_deadline = seconds(10);  ///< a fetch is cut then, and its ids fail
};

struct CacheAsideStats {
  std::uint64_t hits = 0, stale_hits = 0, misses = 0, joined = 0, fetches = 0, fetched_ids = 0;
};

/// Lane-only. Nobody may be waiting when it is destroyed; running fetches are destroyed with it.
template <class Value>
class CacheAside {
 public:
  /// A value, or nothing for an id that does not exist, or why it is not known.
  using Found = Result<std::optional<Value>>;
  /// Fetches these ids, each once, and answers in their order. As a whole it fails for all of them.
  using Fetch = std::function<Task<Result<std::vector<Found>>>(std::vector<std::string> ids)>;

  /// `lane`, `random` and what `fetch` uses outlive this. Fetches run on the lane under a scope of
  /// their own: a caller that gives up takes nothing from the others.
  CacheAside(Lane& lane, Random& random, Fetch fetch, CacheAsideOptions options = {})
      : lane_(lane),
        random_(random),
        fetch_(std::move(fetch)),
        options_(options),
        entries_(lane.clock(), {.max_entries = options.max_entries}) {}
  CacheAside(const CacheAside&) = delete;
  CacheAside& operator=(const CacheAside&) = delete;

  /// Answers in the order of `ids`, which may repeat. One failing id fails alone. A caller that is
  /// cancelled, or whose deadline passes, gets what is known and `cancelled` or `timeout` for the
  /// rest; the fetches go on.
  Task<std::vector<Found>> get(std::vector<std::string> ids);

  /// Forgets an id, as after a change; a fetch under way does not bring the old value back.
  void forget(const std::string& id) {
    entries_.erase(id);
    const auto found = flying_.find(id);
    if (found == flying_.end()) return;
    found->second->dropped.insert(id);
    flying_.erase(found);
  }
  CacheAsideStats stats() const noexcept { return stats_; }

 private:
  struct Entry {
    std::optional<Value> value;
    Instant fresh_until;
    Instant given_until;
  };
  struct Waiter;
  /// One fetch, shared by those who wait for some of its ids.
  struct Flight {
    CacheAside* cache = nullptr;
    std::string group;
    std::vector<std::string> ids;
    std::unordered_map<std::string, Found> answers;
    std::unordered_set<std::string> dropped;  // forgotten meanwhile: not to be kept
    Task<Result<std::vector<Found>>> task;
    TaskContext context;
    Waiter* waiters = nullptr;
    bool landed = false;
    typename std::list<std::shared_ptr<Flight>>::iterator self;
  };
  using FlightPtr = std::shared_ptr<Flight>;

  /// `FailureKind k = co_await Waiter(flight)`: none when it has landed, timeout at the deadline of
  /// the waiting task.
  struct Waiter final : Suspension {
    explicit Waiter(FlightPtr f) noexcept : flight(std::move(f)) {}
    ~Waiter() override { unlink(); }
    bool await_ready() const noexcept { return flight->landed; }
    template <class P>
    bool await_suspend(std::coroutine_handle<P> self) noexcept {
      if (!this->suspend(self)) return false;
      next = flight->waiters;
      if (next != nullptr) next->link = &next;
      link = &flight->waiters;
      flight->waiters = this;
      const TaskContext& task = this->context();
      if (task.deadline != kNever) timer.arm(*task.lane, task.deadline, &Waiter::late, this);
      return true;
    }
    FailureKind await_resume() const noexcept {
      if (this->cancel_kind() != FailureKind::none) return this->cancel_kind();
      return timed_out ? FailureKind::timeout : FailureKind::none;
    }
    static void late(void* owner) noexcept {
      auto* self = static_cast<Waiter*>(owner);
      self->timed_out = true;
      self->wake();
    }
    void unlink() noexcept {
      timer.cancel();
      if (link == nullptr) return;
      *link = next;
      if (next != nullptr) next->link = link;
      link = nullptr;
    }
    void wake() noexcept {
      unlink();
      this->finish();
    }
    void on_cancel() noexcept override { unlink(); }
    FlightPtr flight;
    Waiter* next = nullptr;
    Waiter** link = nullptr;
    Timer timer;
    bool timed_out = false;
  };

  FlightPtr launch(std::vector<std::string> ids);
  static void landed(void* flight) noexcept;
  void land(Flight& flight);
  void keep(const std::string& id, const std::optional<Value>& value);
  Duration jittered(Duration ttl) {
    return Duration(static_cast<Duration::rep>(static_cast<double>(ttl.count()) *
                                               (1 - options_.jitter * random_.unit())));
  }

  Lane& lane_;
  Random& random_;
  const Fetch fetch_;
  const CacheAsideOptions options_;
  BoundedCache<std::string, Entry> entries_;
  std::unordered_map<std::string, Flight*> flying_;
  std::list<FlightPtr> flights_;
  std::unordered_map<std::string, std::size_t> in_group_;  // flights; none: no entry
  CacheAsideStats stats_;
};

template <class Value>
Task<std::vector<typename CacheAside<Value>::Found>> CacheAside<Value>::get(
    std::vector<std::string> ids) {
  const Instant now = lane_.clock().now();
  const Failure full(FailureKind::overloaded, "cache_flights_full",
                     "as many fetches run as may run at once");
  std::vector<Found> answers(ids.size(), Found(fail(full)));
  std::vector<FlightPtr> joined(ids.size());  // which flight brings which id
  std::vector<std::string> missing, outdated;
  std::unordered_set<std::string> asked;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::string& id = ids[i];
    const auto flying = flying_.find(id);
    if (Entry* entry = entries_.find(id); entry != nullptr && now < entry->given_until) {
      answers[i] = entry->value;
      ++(now < entry->fresh_until ? stats_.hits : stats_.stale_hits);
      if (now >= entry->fresh_until && flying == flying_.end() && asked.insert(id).second)
        outdated.push_back(id);
    } else if (flying != flying_.end()) {
      joined[i] = *flying->second->self;
      ++stats_.joined;
    } else if (++stats_.misses; asked.insert(id).second) {
      missing.push_back(id);
    }
  }
  // Launched before anybody is waited for: other calls on this lane join them from here on.
  FlightPtr own;
  if (!missing.empty()) own = launch(std::move(missing));
  if (!outdated.empty()) launch(std::move(outdated));
  FailureKind cut = FailureKind::none;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    FlightPtr flight = joined[i];
    if (!flight && !answers[i] && own) flight = own;
    if (!flight) continue;
    if (!flight->landed && cut == FailureKind::none) {
      Waiter waiter(flight);
      cut = co_await waiter;
    }
    if (!flight->landed) {
      Failure why(cut, {}, cut == FailureKind::timeout ? "the deadline passed while a fetch was waited for"
                                                       : "cancelled while a fetch was waited for");
      answers[i] = fail(std::move(why));
      continue;
    }
    const auto found = flight->answers.find(ids[i]);
    if (found != flight->answers.end()) answers[i] = found->second;
  }
  co_return answers;
}

template <class Value>
typename CacheAside<Value>::FlightPtr CacheAside<Value>::launch(std::vector<std::string> ids) {
  std::string group = options_.flight_group ? options_.flight_group(ids.front()) : std::string();
  std::size_t& running = in_group_[group];
  if (running >= options_.max_flights) return nullptr;
  ++running;
  auto flight = std::make_shared<Flight>();
  flight->group = std::move(group);
  flights_.push_front(flight);
  flight->self = flights_.begin();
  flight->cache = this;
  flight->ids = ids;
  for (const std::string& id : ids) flying_[id] = flight.get();
  ++stats_.fetches;
  stats_.fetched_ids += ids.size();
  // Cut when it is over, so that a fetch that hangs does not hold its ids for ever.
  const Instant deadline = lane_.clock().now() + options_.flight_deadline;
  flight->context = {&lane_, nullptr, deadline};
  flight->task = with_deadline(fetch_(std::move(ids)), deadline);
  if (flight->task.start(flight->context, &CacheAside::landed, flight.get())) land(*flight);
  return flight;
}

template <class Value>
void CacheAside<Value>::landed(void* owner) noexcept {
  auto* flight = static_cast<Flight*>(owner);
  flight->cache->land(*flight);
}

template <class Value>
void CacheAside<Value>::land(Flight& flight) {
  const FlightPtr alive = *flight.self;  // those who are woken may be the last to know it
  Result<std::vector<Found>> fetched = fail(FailureKind::internal, {}, "");
  try {
    fetched = flight.task.take();
  } catch (const std::exception& error) {
    fetched = fail(FailureKind::internal, "foreign_exception", error.what());
  } catch (...) {
    fetched = fail(FailureKind::internal, "foreign_exception", "of an unknown type");
  }
  if (fetched && fetched->size() != flight.ids.size())
    fetched = fail(FailureKind::internal, "bad_fetch", "the fetch answered another number of ids");
  for (std::size_t i = 0; i < flight.ids.size(); ++i) {
    const std::string& id = flight.ids[i];
    Found answer = fetched ? std::move((*fetched)[i]) : Found(fail(fetched.error()));
    const auto flying = flying_.find(id);
    if (flying != flying_.end() && flying->second == &flight) flying_.erase(flying);
    if (answer && !flight.dropped.contains(id)) keep(id, *answer);
    flight.answers.emplace(id, std::move(answer));
  }
  flight.landed = true;
  if (const auto group = in_group_.find(flight.group); --group->second == 0) in_group_.erase(group);
  flights_.erase(flight.self);
  while (flight.waiters != nullptr) flight.waiters->wake();
}

template <class Value>
void CacheAside<Value>::keep(const std::string& id, const std::optional<Value>& value) {
  const Duration ttl = jittered(value ? options_.ttl : options_.absent_ttl);
  if (ttl <= Duration::zero()) {
    entries_.erase(id);
    return;
  }
  const Instant now = lane_.clock().now();
  entries_.put(id, Entry{value, now + ttl, now + ttl + (value ? options_.stale : Duration::zero())});
}

}  // namespace sluice::resilience
