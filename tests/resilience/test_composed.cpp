// All limits of one protector at once: every policy against a plain model of it, millions of seeded
// steps: callers enter, end well or badly, are cancelled, vanish or hang; rules are reloaded in between.
// What passes fits every limit, what is refused did not fit the limit that says so, and nothing taken
// before a refusal is kept.
#include <gtest/gtest.h>

#include <list>
#include <map>

#include "resilience/limits_fixture.hpp"
#include "sim/clock.hpp"
#include "sluice/resilience/guarded.hpp"

namespace sluice::resilience {
namespace {

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

}  // namespace
}  // namespace sluice::resilience
