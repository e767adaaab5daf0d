// Guarding calls to a dependency that fails: sluice::resilience by itself, without a server, a
// store or gRPC. The breaker opens, refuses, tries again, and closes when the dependency is back.
#include <cstdio>
#include <sluice/base/runtime.hpp>
#include <sluice/resilience.hpp>

using namespace sluice;
using namespace sluice::resilience;

constexpr std::string_view kRules = R"(
[guard."code.*".breaker]
window = "count"
window_calls = 10
minimum_calls = 5
isolation = "50ms"
isolation_jitter = 0
trials = 2

[guard."code.*".timeout]
timeout = "100ms"
margin = "5ms"

[guard."code.*".bulkhead]
limit = 8
)";

// What calls the other service; here it only pretends to.
Task<Result<int>> ask_for_code(bool broken) {
  co_await sleep_for(milliseconds(1));
  if (broken) co_return fail(Failure(FailureKind::unavailable, "connection refused"));
  co_return 4711;
}

int main() {
  RealClock clock;
  RealRandom random;
  LaneThread lane{clock};
  GuardsOptions options;
  options.on_transition = [](const Protector& p, const BreakerTransition& t) {
    std::printf("%s: %s -> %s\n", p.name().c_str(), to_string(t.from).data(),
                to_string(t.to).data());
  };
  Guards guards(clock, random, std::move(options));
  auto rules = parse_rules(kRules, "guarded_calls");
  if (!rules) return std::fprintf(stderr, "%s\n", rules.error().to_string().c_str()), 1;
  if (!guards.reload(std::move(*rules))) return 1;

  Protector& protector = guards.find("code.issue");  // resolved once
  int reached = 0, answered = 0, refused = 0;
  for (int i = 0; i < 60; ++i) {
    // It is back after the five calls that it takes to open the breaker.
    auto call = [&reached](AttemptNote&) { return ask_for_code(reached++ < 5); };
    const Result<int> code = block_on(lane, guarded(protector, GuardedCall{}, random, call));
    answered += code ? 1 : 0;
    refused += !code && code.error().code() == "blocked_by_breaker" ? 1 : 0;
    if (!code) block_on(lane, [](Duration pause) -> Task<int> {
      co_await sleep_for(pause);
      co_return 0;
    }(milliseconds(2)));
  }
  std::printf("answered: %s, refused by the open breaker: %s, breaker: %s\n",
              answered > 20 ? "most" : "few", refused > 0 ? "some" : "none",
              to_string(protector.breaker()->state()).data());
}
