// All limits of one protector at once. First every policy against a plain model of it, millions of
// seeded steps: callers enter, end well or badly, are cancelled, vanish or hang; rules are reloaded in
// between. What passes fits every limit, what is refused did not fit the limit that says so, and nothing
// taken before a refusal is kept. Then with queues under the deterministic scheduler, then with threads.
#include <fmt/format.h>

#include <deque>
#include <list>
#include <map>

#include "sim/scheduler.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/resilience/guarded.hpp"
#include "sluice/resilience/guards.hpp"

namespace sluice::resilience {
namespace {

constexpr std::uint32_t kTrials = 3;
constexpr std::int64_t kPerNs = 16;  // prices are kept in sixteenths of a nanosecond
constexpr std::size_t kKeys = 5;
constexpr std::array<double, kPriorities> kShares{1.0, 1.0, 0.75, 0.5};

/// What a rule says, as the model needs it.
struct Limits {
  std::array<Mode, kPolicies> modes{};
  std::uint64_t rate = 0, burst = 0, hot = 0, pacing = 0, warm = 0;
  std::uint32_t places = 0;
  static constexpr Duration kPeriod = milliseconds(100), kMaxWait = milliseconds(3);

  Mode mode(Policy policy) const { return modes[static_cast<std::size_t>(policy)]; }
  bool on(Policy policy) const { return mode(policy) != Mode::off; }
  bool enforced(Policy policy) const { return mode(policy) == Mode::enforce; }

  static Limits draw(sim::SimRandom& random, bool all_enforced) {
    Limits limits;
    for (const Policy policy : {Policy::breaker, Policy::throttle, Policy::rate, Policy::warm_up, Policy::hot_keys,
                                Policy::pacing, Policy::bulkhead, Policy::adaptive, Policy::timeout}) {
      const auto roll = random.below(10);
      limits.modes[static_cast<std::size_t>(policy)] = all_enforced || roll < 7 ? Mode::enforce : roll < 9 ? Mode::observe : Mode::off;
    }
    // Both bound what runs at once: a rule may have one of them.
    const Policy other = random.one_in(2) ? Policy::bulkhead : Policy::adaptive;
    limits.modes[static_cast<std::size_t>(other)] = Mode::off;
    // Above a thousand a second, below it, and now and then nothing at all.
    limits.rate = random.one_in(20) ? 0 : 1 + random.below(random.one_in(2) ? 400 : 40);
    limits.burst = 1 + random.below(20);
    limits.hot = 1 + random.below(60);
    limits.pacing = 5 + random.below(400);
    limits.warm = 5 + random.below(400);
    limits.places = random.one_in(20) ? 0 : 1 + static_cast<std::uint32_t>(random.below(8));
    return limits;
  }
  std::string toml() const {
    const auto mode_of = [&](Policy policy) { return to_string(mode(policy)); };
    return fmt::format(
        "[guard.a.breaker]\nmode = \"{}\"\nwindow = \"count\"\nwindow_calls = 20\nminimum_calls = 6\nisolation = \"10ms\"\n"
        "isolation_max = \"40ms\"\ntrials = {}\ntrial_timeout = \"7ms\"\nquiet = \"100ms\"\n"
        "[guard.a.throttle]\nmode = \"{}\"\nk = 1.5\nwindow = \"200ms\"\nminimum = 20\nmax_refusal = 0.5\n"
        "[guard.a.rate]\nmode = \"{}\"\nlimit = {}\nperiod = \"100ms\"\nburst = {}\n"
        "[guard.a.warm_up]\nmode = \"{}\"\nlimit = {}\nperiod = \"100ms\"\nwarm_up = \"50ms\"\nmax_wait = \"3ms\"\n"
        "[guard.a.hot_keys]\nmode = \"{}\"\nlimit = {}\nperiod = \"100ms\"\nmax_keys = 8\non_full = \"refuse\"\n"
        "[guard.a.pacing]\nmode = \"{}\"\nlimit = {}\nperiod = \"100ms\"\nmax_wait = \"3ms\"\n"
        "{}[guard.a.timeout]\nmode = \"{}\"\ntimeout = \"5ms\"\nmargin = \"1ms\"\n",
        mode_of(Policy::breaker), kTrials, mode_of(Policy::throttle), mode_of(Policy::rate), rate, burst,
        mode_of(Policy::warm_up), warm, mode_of(Policy::hot_keys), hot, mode_of(Policy::pacing), pacing,
        on(Policy::bulkhead)
            ? fmt::format("[guard.a.bulkhead]\nmode = \"{}\"\nlimit = {}\n", mode_of(Policy::bulkhead), places)
            : fmt::format("[guard.a.adaptive]\nmode = \"{}\"\ninitial = 6\nfloor = 2\nceiling = 12\nwindow = \"5ms\"\n"
                          "minimum_samples = 3\n",
                          mode_of(Policy::adaptive)),
        mode_of(Policy::timeout));
  }
};

std::int64_t units(Duration time) { return time.count() * kPerNs; }
std::int64_t price(std::uint64_t limit) {
  const auto whole = static_cast<std::uint64_t>(units(Limits::kPeriod));
  return static_cast<std::int64_t>((whole + limit - 1) / limit);
}

/// A bucket that leaks: what was taken drains at the limit's pace and never stands above the burst.
struct Leaky {
  std::int64_t empty_at = 0;
  bool fits(std::int64_t now, std::uint64_t limit, std::uint64_t burst, std::uint32_t n) const {
    if (n == 0) return true;
    if (limit == 0 || n > burst) return false;
    return std::max(empty_at - now, std::int64_t{0}) + price(limit) * n <= price(limit) * static_cast<std::int64_t>(burst);
  }
  void take(std::int64_t now, std::uint64_t limit, std::uint32_t n) {
    if (n != 0) empty_at = std::max(empty_at, now) + price(limit) * n;
  }
};

struct Caller {
  GuardPermit permit;
  std::uint64_t generation = 0;
  bool in = false, place = false, adaptive = false, trial = false;
};

class Composed {
 public:
  explicit Composed(std::uint64_t seed) : random_(seed), seed_(seed) {
    reload(true);
    breaker_ = guard_.breaker();  // kept for good, also where a later rule switches it off
  }

  void explore(int steps) {
    if (breaker_ == nullptr) return;
    std::uint64_t health = 50;
    for (step_ = 0; step_ < steps && !testing::Test::HasFailure(); ++step_) {
      clock_.advance(microseconds(random_.below(400)));
      if (random_.one_in(5'000)) clock_.advance(milliseconds(300));
      if (random_.one_in(400)) health = random_.below(101);
      if (random_.one_in(300)) reload();
      Caller& caller = callers_[random_.below(callers_.size())];
      if (!caller.in)
        enter(caller);
      else if (!random_.one_in(5))  // the others hang a while longer
        end(caller, health);
      check();
    }
    for (Caller& caller : callers_)
      if (caller.in) end(caller, 100);
    reload(true);
    check();
    EXPECT_EQ(shown().breaker->trials_running, 0u) << where();
    for (const auto& one : shown().policies) EXPECT_EQ(one.blocked, refused[one.policy]) << where() << to_string(one.policy);
    clock_.advance(seconds(10));
    EXPECT_EQ(shown().tokens, limits_.rate == 0 ? 0 : limits_.burst) << where();
  }

  std::uint64_t passed = 0;
  std::map<Policy, std::uint64_t> refused;
  std::uint64_t half_open = 0;

 private:
  std::string where() const { return fmt::format("seed {} step {}", seed_, step_); }
  ProtectorSnapshot shown() const { return guard_.snapshot(clock_.now()); }

  void reload(bool all_enforced = false) {
    const Limits before = limits_;
    limits_ = Limits::draw(random_, all_enforced);
    const WarmUpOptions warm{.limit = limits_.warm, .period = Limits::kPeriod, .warm_up = milliseconds(50),
                             .max_wait = Limits::kMaxWait};
    if (!warm_)
      warm_.emplace(warm);
    else if (limits_.warm != before.warm || limits_.mode(Policy::warm_up) != before.mode(Policy::warm_up))
      warm_->reconfigure(warm);
    auto rules = parse_rules(limits_.toml(), "composed.toml");
    ASSERT_TRUE(rules) << rules.error().to_string();
    const auto done = guards_.reload(std::move(*rules));
    ASSERT_TRUE(done) << done.error().to_string();
  }

  std::uint32_t places_of(std::uint32_t limit, Priority priority) const {
    const double share = kShares[static_cast<std::size_t>(priority)];
    return limit == 0 ? 0 : std::max(1u, static_cast<std::uint32_t>(share * limit + 1e-9));
  }
  std::uint32_t counted(bool Caller::*what) const {
    return static_cast<std::uint32_t>(std::ranges::count_if(callers_, [&](const Caller& c) { return c.in && c.*what; }));
  }

  /// The breaker's verdict as its state and our own list of trials give it.
  bool breaker_lets_in(const BreakerSnapshot& before, Instant now) {
    if (before.state == BreakerState::closed) return true;
    if (before.state == BreakerState::open) return now >= before.open_until;
    if (trials_.size() + decided_ >= kTrials) std::erase_if(trials_, [&](const auto& t) { return t.second <= now; });
    return trials_.size() + decided_ < kTrials;
  }

  void enter(Caller& caller) {
    const Instant now = clock_.now();
    const std::int64_t at = units(now.time_since_epoch());
    CallInfo call{.now = now};
    const std::size_t key = random_.below(kKeys);
    const std::string name = fmt::format("key-{}", key);
    if (!random_.one_in(3)) call.hot_key = name;
    call.weight = random_.one_in(4) ? static_cast<std::uint32_t>(random_.below(4)) : 1;
    call.priority = static_cast<Priority>(random_.below(kPriorities));
    const BreakerSnapshot before = guard_breaker().snapshot(now);
    if (before.generation != generation_) generation_ = before.generation, trials_.clear(), decided_ = 0;

    const bool breaker = breaker_lets_in(before, now);
    const bool rate = rate_.fits(at, limits_.rate, limits_.burst, call.weight);
    const bool hot = hot_[key].fits(at, limits_.hot, limits_.hot, call.weight);
    const std::int64_t turn = std::max(turn_, at);
    const bool pacing = call.weight == 0 || (call.weight <= limits_.pacing && turn - at <= units(Limits::kMaxWait));
    const bool warm = warm_->peek(now, call.weight).passed;
    const std::uint32_t in = counted(&Caller::place), adaptive_in = counted(&Caller::adaptive);
    const bool place = in < places_of(limits_.places, call.priority);
    const auto found = limits_.on(Policy::adaptive) ? shown().adaptive->places.limit : 0;
    const bool adaptive = adaptive_in < places_of(found, call.priority);

    auto permit = guard_.try_enter(call);
    const auto fits = [&](Policy policy) {
      switch (policy) {
        case Policy::breaker: return breaker;
        case Policy::rate: return rate;
        case Policy::warm_up: return warm;
        case Policy::hot_keys: return hot || call.hot_key.empty();
        case Policy::pacing: return pacing;
        case Policy::bulkhead: return place;
        case Policy::adaptive: return adaptive;
        default: return true;
      }
    };
    if (!permit) {
      const Policy by = permit.error().policy;
      ++refused[by];
      EXPECT_TRUE(limits_.enforced(by)) << where() << ": " << to_string(by) << " refused although it is not enforced";
      // The throttle's refusals are a matter of chance.
      if (by != Policy::throttle) EXPECT_FALSE(fits(by)) << where() << ": " << to_string(by) << " refused what fits";
      if (by > Policy::breaker && limits_.enforced(Policy::breaker)) EXPECT_TRUE(breaker) << where();
      // An isolation that is over ends with the first who asks, let in or not.
      note_transition();
      return;
    }
    ++passed;
    for (const Policy policy : {Policy::breaker, Policy::rate, Policy::warm_up, Policy::hot_keys, Policy::pacing,
                                Policy::bulkhead, Policy::adaptive})
      if (limits_.enforced(policy)) EXPECT_TRUE(fits(policy)) << where() << ": passed above the limit of " << to_string(policy);
    note_transition();
    caller.in = true;
    caller.place = limits_.on(Policy::bulkhead) && place;
    caller.adaptive = limits_.on(Policy::adaptive) && adaptive;
    caller.generation = generation_;
    caller.trial = limits_.on(Policy::breaker) && breaker && guard_breaker().state() == BreakerState::half_open;
    if (caller.trial) trials_[&caller] = now + milliseconds(7);
    if (limits_.on(Policy::rate) && rate) rate_.take(at, limits_.rate, call.weight);
    if (limits_.on(Policy::hot_keys) && hot && !call.hot_key.empty()) hot_[key].take(at, limits_.hot, call.weight);
    if (limits_.on(Policy::pacing) && pacing && call.weight != 0) {
      if (limits_.enforced(Policy::pacing))
        EXPECT_GE(permit->wait(), Duration((turn - at) / kPerNs)) << where() << ": told to go before its turn";
      turn_ = turn + price(limits_.pacing) * call.weight;
    }
    if (limits_.on(Policy::warm_up) && warm && call.weight != 0) {
      const Duration wait = warm_->try_take(now, call.weight).wait;
      if (limits_.enforced(Policy::warm_up)) EXPECT_GE(permit->wait(), wait) << where() << ": told to go before its turn";
      EXPECT_GE(now + wait, warm_turn_) << where() << ": two calls closer than the limit when warm";
      warm_turn_ = now + wait + Limits::kPeriod * call.weight / static_cast<std::int64_t>(limits_.warm);
    }
    caller.permit = std::move(*permit);
  }

  void end(Caller& caller, std::uint64_t health) {
    caller.in = false;
    const auto trial = caller.trial ? trials_.find(&caller) : trials_.end();
    const bool counts = trial != trials_.end() && caller.generation == generation_;
    if (random_.one_in(8)) {
      if (random_.one_in(2))
        caller.permit.cancel();
      else
        caller.permit = GuardPermit();  // its owner threw, or forgot it
      if (trial != trials_.end()) trials_.erase(trial);
      return note_transition();
    }
    const bool good = random_.below(100) < health;
    caller.permit.complete(good               ? Outcome::success
                           : random_.one_in(3) ? Outcome::timeout
                           : random_.one_in(3) ? Outcome::overloaded
                                               : Outcome::failure,
                           clock_.now());
    if (trial != trials_.end()) trials_.erase(trial);
    if (counts) ++decided_;
    note_transition();
  }

  void note_transition() {
    const std::uint64_t now = guard_breaker().snapshot(clock_.now()).generation;
    if (now == generation_) return;
    generation_ = now;
    trials_.clear();
    decided_ = 0;
    half_open += guard_breaker().state() == BreakerState::half_open;
  }

  void check() {
    const ProtectorSnapshot now = shown();
    ASSERT_EQ(now.passed, passed) << where();
    if (now.bulkhead) ASSERT_EQ(now.bulkhead->in_flight, counted(&Caller::place)) << where();
    if (now.adaptive) ASSERT_EQ(now.adaptive->places.in_flight, counted(&Caller::adaptive)) << where();
    if (!now.breaker) return;
    ASSERT_LE(now.breaker->trials_running + now.breaker->trials_passed + now.breaker->trials_failed, kTrials) << where();
    if (now.breaker->state == BreakerState::half_open) {
      ASSERT_EQ(now.breaker->trials_running, trials_.size()) << where();
      ASSERT_EQ(now.breaker->trials_passed + now.breaker->trials_failed, decided_) << where();
    }
  }
  Breaker& guard_breaker() { return *breaker_; }

  mutable sim::SimClock clock_;
  sim::SimRandom random_;
  const std::uint64_t seed_;
  int step_ = 0;
  Guards guards_{clock_, random_};
  Protector& guard_ = guards_.find("a");
  Breaker* breaker_ = nullptr;
  Limits limits_;
  std::array<Caller, 14> callers_;
  Leaky rate_;
  std::array<Leaky, kKeys> hot_;
  // Its price falls along a line as it is used, so the model is one that only sees what passed.
  std::optional<WarmUp> warm_;
  Instant warm_turn_{};
  std::int64_t turn_ = 0;
  std::uint64_t generation_ = 0, decided_ = 0;
  std::map<const Caller*, Instant> trials_;
};

TEST(Composed, RES_21_limits_of_all_policies_together_are_exact_in_millions_of_steps) {
  std::uint64_t passed = 0, half_open = 0;
  std::map<Policy, std::uint64_t> refused;
  for (std::uint64_t seed = 1; seed <= 20 && !HasFailure(); ++seed) {
    Composed one(seed);
    one.explore(100'000);
    passed += one.passed;
    half_open += one.half_open;
    for (const auto& [policy, count] : one.refused) refused[policy] += count;
  }
  EXPECT_GT(passed, 100'000u);
  EXPECT_GT(half_open, 500u);
  for (const Policy policy : {Policy::breaker, Policy::throttle, Policy::rate, Policy::warm_up, Policy::hot_keys,
                              Policy::pacing, Policy::bulkhead, Policy::adaptive})
    EXPECT_GT(refused[policy], 1'000u) << to_string(policy) << " was hardly ever the one that refused";
}


// The same policies with queues, turns to wait for, timeouts, retries, hedges and callers that leave, on
// two lanes in an order that the seed chooses. After every step of the scheduler the limits hold.
class Queued {
 public:
  explicit Queued(std::uint64_t seed) : random_(seed), scheduler_(clock_, seed) {
    for (int i = 0; i < 2; ++i) lanes_.push_back(&scheduler_.add_lane(fmt::format("lane-{}", i)));
    reload();
  }

  void explore(std::uint64_t steps) {
    began_ = clock_.now();
    for (std::uint64_t step = 0; step < steps && !testing::Test::HasFailure(); ++step) {
      if (callers_.size() < 40 && random_.one_in(8)) come();
      if (random_.one_in(400)) leave();
      if (random_.one_in(3'000)) reload();
      if (random_.one_in(1'500)) health_ = random_.below(101);
      if (!scheduler_.step()) clock_.advance(microseconds(200));
      std::erase_if(callers_, [](const auto& caller) { return caller->ended; });
      check(step);
    }
    reload();  // a rule with queue and places, whatever the last one was
    ASSERT_TRUE(scheduler_.run_until(
        [&] { return std::ranges::all_of(callers_, [](const auto& caller) { return caller->ended; }); }, 1'000'000));
    callers_.clear();
    EXPECT_EQ(running_, 0u);
    const ProtectorSnapshot shown = guard_.snapshot(clock_.now());
    EXPECT_EQ(shown.bulkhead->in_flight, 0u);
    EXPECT_EQ(shown.bulkhead->waiting, 0u);
    EXPECT_EQ(shown.breaker->trials_running, 0u);
    clock_.advance(seconds(10));
    EXPECT_EQ(guard_.snapshot(clock_.now()).tokens, kBurst);
  }
  std::uint64_t calls = 0, left = 0, half_open = 0, full = 0;

 private:
  static constexpr std::uint64_t kRate = 300, kBurst = 20;  // per 100 ms
  struct Caller {
    Task<Result<int>> task;
    CancelScope scope;
    TaskContext context;
    bool ended = false;
    Lane* lane = nullptr;
  };

  void reload() {
    places_ = 1 + static_cast<std::uint32_t>(random_.below(6));
    // A lower limit takes effect as calls end: who has a place keeps it, also if it does not run yet.
    const auto before = guard_.snapshot(clock_.now()).bulkhead;
    most_places_ = std::max(places_, before ? before->in_flight : 0);
    auto rules = parse_rules(
        fmt::format("[guard.a.breaker]\nwindow = \"count\"\nwindow_calls = 20\nminimum_calls = 6\nisolation = \"10ms\"\n"
                    "isolation_max = \"40ms\"\ntrials = {}\n"
                    "[guard.a.rate]\nlimit = {}\nperiod = \"100ms\"\nburst = {}\n"
                    "[guard.a.pacing]\nlimit = {}\nperiod = \"100ms\"\nmax_wait = \"5ms\"\n"
                    "[guard.a.hot_keys]\nlimit = 100\nperiod = \"100ms\"\n"
                    "[guard.a.bulkhead]\nlimit = {}\nmax_queue = {}\nmax_wait = \"4ms\"\norder = \"{}\"\n"
                    "[guard.a.timeout]\ntimeout = \"3ms\"\nmargin = \"500us\"\n"
                    "[guard.a.retry]\nattempts = 3\nbase = \"1ms\"\nmax = \"2ms\"\n"
                    "[guard.a.hedge]\ndelay = \"1ms\"\n",
                    kTrials, kRate, kBurst, 200 + random_.below(400), places_, random_.below(12),
                    random_.one_in(2) ? "fifo" : "lifo_under_overload"),
        "queued.toml");
    ASSERT_TRUE(rules) << rules.error().to_string();
    const auto done = guards_.reload(std::move(*rules));
    ASSERT_TRUE(done) << done.error().to_string();
  }

  struct Witness {
    Queued& self;
    explicit Witness(Queued& queued) : self(queued) {
      ++self.calls;
      ++self.running_;
      EXPECT_LE(self.running_, self.most_places_) << "one more than the limit";
    }
    ~Witness() { --self.running_; }
  };
  Task<Result<int>> work() {
    const Witness witness(*this);
    if (!random_.one_in(4)) {
      const auto hangs = random_.one_in(10);
      const FailureKind cut = co_await sleep_for(microseconds(hangs ? 60'000'000 : random_.below(2'500)));
      if (cut != FailureKind::none) co_return fail(Failure(cut));
    }
    if (random_.below(100) >= health_) co_return fail(Failure(FailureKind::unavailable));
    co_return 1;
  }

  void come() {
    auto& caller = *callers_.emplace_back(std::make_shared<Caller>());
    caller.lane = lanes_[random_.below(lanes_.size())];
    const Instant deadline = random_.one_in(2) ? kNever : clock_.now() + microseconds(random_.below(8'000));
    caller.context = {caller.lane, &caller.scope, deadline};
    GuardedCall call;
    call.has_key = random_.one_in(2);
    call.weight = static_cast<std::uint32_t>(random_.below(3));
    if (random_.one_in(2)) call.hot_key = fmt::format("key-{}", random_.below(4));
    caller.task = guarded(guard_, std::move(call), random_, [this](AttemptNote&) { return work(); });
    const auto ended = [](void* self) noexcept {
      auto* one = static_cast<Caller*>(self);
      (void)one->task.take();
      one->ended = true;
    };
    caller.lane->post([&caller, ended] {
      if (caller.task.start(caller.context, ended, &caller)) ended(&caller);
    });
  }
  void leave() {
    if (callers_.empty()) return;
    const std::weak_ptr<Caller> caller = callers_[random_.below(callers_.size())];
    ++left;
    caller.lock()->lane->post([caller] {
      if (const auto one = caller.lock()) one->scope.cancel();
    });
  }

  void check(std::uint64_t step) {
    const ProtectorSnapshot shown = guard_.snapshot(clock_.now());
    const BreakerSnapshot& breaker = *shown.breaker;
    ASSERT_LE(breaker.trials_running + breaker.trials_passed + breaker.trials_failed, kTrials) << "step " << step;
    most_places_ = std::min(most_places_, std::max(places_, shown.bulkhead->in_flight));
    ASSERT_LE(shown.bulkhead->in_flight, most_places_) << "step " << step;
    ASSERT_LE(running_, shown.bulkhead->in_flight) << "step " << step << ": who runs has a place";
    half_open += breaker.state == BreakerState::half_open && breaker.generation != generation_;
    generation_ = breaker.generation;
    full += shown.bulkhead->in_flight == places_;
  }

  sim::SimClock clock_;
  sim::SimRandom random_;
  sim::SimScheduler scheduler_;
  std::vector<Lane*> lanes_;
  Guards guards_{clock_, random_};
  Protector& guard_ = guards_.find("a");
  std::vector<std::shared_ptr<Caller>> callers_;
  Instant began_{};
  std::uint32_t running_ = 0, places_ = 0, most_places_ = 0;
  std::uint64_t health_ = 50, generation_ = 0;
};

TEST(Composed, RES_42_no_permit_is_lost_or_minted_between_queues_turns_timeouts_and_leavers) {
  std::uint64_t calls = 0, left = 0, half_open = 0, full = 0;
  const char* const more = std::getenv("SLUICE_SEEDS");  // as many; for campaigns
  const std::uint64_t seeds = more != nullptr ? std::strtoull(more, nullptr, 10) : 10;
  for (std::uint64_t seed = 1; seed <= seeds && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Queued one(seed);
    one.explore(200'000);
    calls += one.calls, left += one.left, half_open += one.half_open, full += one.full;
  }
  EXPECT_GT(calls, 50'000u);
  EXPECT_GT(left, 500u);
  EXPECT_GT(half_open, 500u);
  EXPECT_GT(full, 1'000u);
}

// Threads, with time standing still for a while: what passed in all fits what had refilled by then,
// nobody runs beyond the places, and in the end every permit is back.
void race(std::uint32_t places, std::uint64_t rate, std::uint64_t burst, std::uint64_t hot) {  // per 100 ms
  constexpr int kThreads = 4, kRounds = 20, kCalls = 25'000;  // long enough to run beside each other
  RealRandom random;
  sim::SimClock clock;
  Guards guards(clock, random);
  Protector& guard = guards.find("a");
  auto rules = parse_rules(
      fmt::format("[guard.a.breaker]\nminimum_calls = 100000\ntrials = {}\n[guard.a.rate]\nlimit = {}\nperiod = \"100ms\"\n"
                  "burst = {}\n[guard.a.hot_keys]\nlimit = {}\nperiod = \"100ms\"\n[guard.a.bulkhead]\nlimit = {}\n"
                  "[guard.a.pacing]\nlimit = {}\nperiod = \"100ms\"\nmax_wait = \"10ms\"\n",
                  kTrials, rate, burst, hot, places, rate + 1000),
      "threads.toml");
  ASSERT_TRUE(rules) << rules.error().to_string();
  ASSERT_TRUE(guards.reload(std::move(*rules)));
  clock.advance(seconds(100));
  const Instant began = clock.now();
  std::atomic<std::uint32_t> running{0}, most{0};
  std::atomic<std::uint64_t> passed{0}, places_refused{0};
  std::array<std::atomic<std::uint64_t>, 2> of_key{};
  for (int round = 0; round < kRounds; ++round) {
    const auto elapsed = static_cast<double>((clock.now() - began).count()) / 1e8;  // periods
    {
      std::vector<Thread> threads;
      for (int t = 0; t < kThreads; ++t)
        threads.emplace_back("caller", [&, t] {
          const std::array<std::string_view, 2> keys{"one", "two"};
          for (int i = 0; i < kCalls; ++i) {
            CallInfo call{.now = clock.now()};
            const auto key = static_cast<std::size_t>((i + t) % 2);
            call.hot_key = keys[key];
            call.weight = 1 + static_cast<std::uint32_t>(i % 3 == 0);
            auto permit = guard.try_enter(call);
            if (!permit) {
              places_refused += permit.error().policy == Policy::bulkhead;
              continue;
            }
            const std::uint32_t now_running = ++running;
            std::uint32_t seen = most.load();
            while (now_running > seen && !most.compare_exchange_weak(seen, now_running)) {
            }
            passed += call.weight;
            of_key[key] += call.weight;
            --running;
            if (i % 5 == 0)
              permit->cancel();
            else
              permit->complete(Outcome::success, clock.now());
          }
        });
    }
    ASSERT_LE(static_cast<double>(passed.load()), static_cast<double>(burst) + elapsed * static_cast<double>(rate)) << "round " << round;
    for (const auto& one : of_key)
      ASSERT_LE(static_cast<double>(one.load()), static_cast<double>(hot) * (1 + elapsed)) << "round " << round;
    clock.advance(milliseconds(5 + round % 30));
  }
  EXPECT_LE(most.load(), places);
  if (places == 1) EXPECT_GT(places_refused.load(), 0u) << "they never met";
  EXPECT_GT(passed.load(), std::min<std::uint64_t>(burst, 10'000));
  EXPECT_EQ(guard.snapshot(clock.now()).bulkhead->in_flight, 0u);
  // Half-open admits exactly its trials, and all places are there.
  const std::uint32_t fit = std::min(places, kTrials);
  clock.advance(seconds(1));
  for (int round = 0; round < 200; ++round) {
    (void)guard.breaker()->force(BreakerState::forced_open, clock.now());
    ASSERT_TRUE(guard.breaker()->force(BreakerState::half_open, clock.now()));
    std::atomic<std::uint32_t> trials{0};
    std::vector<GuardPermit> kept(kThreads * 2);
    {
      std::vector<Thread> threads;
      for (std::size_t t = 0; t < kThreads; ++t)
        threads.emplace_back("trial", [&, t] {
          for (std::size_t i = 0; i < 2; ++i)
            if (auto permit = guard.try_enter({.now = clock.now()})) {
              ++trials;
              kept[2 * t + i] = std::move(*permit);
            }
        });
    }
    ASSERT_EQ(trials.load(), fit) << "round " << round;
    ASSERT_EQ(guard.snapshot(clock.now()).breaker->trials_running, fit);
    kept.clear();
    ASSERT_EQ(guard.snapshot(clock.now()).breaker->trials_running, 0u);
    ASSERT_EQ(guard.snapshot(clock.now()).bulkhead->in_flight, 0u);
    clock.advance(milliseconds(10));
  }
}

TEST(Composed, RES_21_threads_together_never_pass_one_above_any_limit) {
  race(3, 2'000, 500, 700);                     // rates refuse most
  race(1, 50'000'000, 50'000'000, 50'000'000);  // the one place does
}

}  // namespace
}  // namespace sluice::resilience
