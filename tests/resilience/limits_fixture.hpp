// Rules with every limit on at once, drawn at random under a seed, for the tests of all of them together.
#pragma once
#include <fmt/format.h>

#include <array>
#include <string>

#include "sim/random.hpp"
#include "sluice/resilience/guards.hpp"

namespace sluice::resilience {

inline constexpr std::uint32_t kTrials = 3;
inline constexpr std::int64_t kPerNs = 16;  // prices are kept in sixteenths of a nanosecond
inline constexpr std::size_t kKeys = 5;
inline constexpr std::array<double, kPriorities> kShares{1.0, 1.0, 0.75, 0.5};

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

}  // namespace sluice::resilience
