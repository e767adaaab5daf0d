// Runs flows on one lane under virtual time, and remembers what the stages did.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>

#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/flow.hpp"
#include "sluice/flow/recovery.hpp"
#include "support/any_store.hpp"

namespace sluice::flow {

/// Makes stages that write what was called to a shared list: "a.prepare", "a.commit", "a.abort(0)".
class Recorder {
 public:
  std::vector<std::string> calls;
  StagePtr stage(std::string name, Effect effect = Effect::none,
                 std::function<Result<Vote>(Exchange&)> vote = [](Exchange&) { return Vote(); }) {
    Phases made;
    made.prepare = [this, name, vote](Exchange& x) {
      calls.push_back(name + ".prepare");
      return vote(x);
    };
    made.commit = [this, name](Exchange& x) -> Status {
      calls.push_back(name + ".commit");
      return failing_commit == name && x.attempt() <= failing_times ? fail(FailureKind::unavailable, "down", "down") : Status();
    };
    made.abort = [this, name](Exchange& x, bool prepared) -> Status {
      calls.push_back(name + ".abort(" + (prepared ? "1" : "0") + ")");
      return failing_abort == name && x.attempt() <= failing_times ? fail(FailureKind::unavailable, "down", "down") : Status();
    };
    return phases(std::move(name), effect, std::move(made));
  }
  std::string failing_commit, failing_abort;
  std::uint32_t failing_times = 0;
};

class FlowTest : public testing::Test {
 protected:
  sim::SimClock clock;
  sim::SimRandom random{1};
  Lane lane{clock};
  IdSource ids{clock, 1};
  Recorder record;

  ExchangePtr exchange(Bytes request = "request") {
    return std::make_shared<Exchange>(ids.exchange(), Namespace("app"), std::move(request));
  }
  /// Drives the lane, moving time on when nothing is ready, for at most a virtual hour.
  void drive(const std::function<bool()>& until) {
    const Instant end = clock.now() + std::chrono::hours(1);
    while (!until() && clock.now() < end) {
      if (lane.run_ready() != 0) continue;
      const Instant next = lane.next_timer();
      if (next == kNever) {
        lane.run_ready();
        if (until()) return;
        ADD_FAILURE() << "nothing left to run";
        return;
      }
      clock.advance_to(next);
    }
  }
  struct Running {
    std::optional<Outcome> outcome;
  };
  std::shared_ptr<Running> start(Flow& flow, ExchangePtr x, RunOptions options = {}) {
    auto running = std::make_shared<Running>();
    auto* owner = new std::shared_ptr<Running>(running);
    options.lane = &lane;
    auto shared = std::make_shared<RunOptions>(std::move(options));
    lane.post([&flow, x, shared, owner] {
      flow.run(x, std::move(*shared),
               [](void* o, Outcome outcome) noexcept {
                 std::unique_ptr<std::shared_ptr<Running>> held(static_cast<std::shared_ptr<Running>*>(o));
                 (*held)->outcome = std::move(outcome);
               },
               owner);
    });
    return running;
  }
  Outcome run(Flow& flow, ExchangePtr x, RunOptions options = {}) {
    auto running = start(flow, std::move(x), std::move(options));
    drive([&] { return running->outcome.has_value(); });
    lane.run_ready();
    return running->outcome.value_or(Outcome{});
  }
  Outcome run(Flow& flow) { return run(flow, exchange()); }
  /// Runs what is ready, and what becomes ready by that; time stands still.
  void settle_lane() {
    while (lane.run_ready() != 0) {
    }
  }
  void advance(Duration by) {
    const Instant end = clock.now() + by;
    while (clock.now() < end) {
      if (lane.run_ready() != 0) continue;
      clock.advance_to(std::min(end, lane.next_timer()));
    }
    settle_lane();
  }
  /// One sweep, by the next process, over what is open in the store of `flow`, or in `from`.
  RecoveryProgress recover(Flow& flow, store::Store* from = nullptr, RecoveryOptions options = {}) {
    Flows flows;
    flows.add(flow);
    Recovery recovery(from != nullptr ? *from : *flow.options().store, flows, lane, options);
    std::optional<Result<RecoveryProgress>> result;
    lane.post([&] { recovery.start([&](const Result<RecoveryProgress>& r) { result = r; }); });
    drive([&] { return result.has_value(); });
    settle_lane();
    return result && *result ? **result : RecoveryProgress{};
  }
  Status wake(Flow& flow, std::string token, Bytes payload = "yes") {
    struct Asking : PendingWake {
      bool over = false;
    } asking;
    asking.ns = Namespace("app");
    asking.token = std::move(token);
    asking.payload = std::move(payload);
    asking.lane = &lane;
    asking.run = [](Job* job) noexcept { static_cast<Asking*>(static_cast<PendingWake*>(job))->over = true; };
    flow.wake(asking);
    drive([&] { return asking.over; });
    return asking.answer;
  }
  std::size_t count(std::string_view call) const {
    return static_cast<std::size_t>(std::ranges::count(record.calls, call));
  }
};

}  // namespace sluice::flow
