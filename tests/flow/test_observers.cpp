// Who is told what of an exchange (FLOW-22), how long its stages took (FLOW-32), and what a journal that
// cannot be written means for it.
#include <stdexcept>

#include "sentences_fixture.hpp"

namespace sluice::flow {
namespace {

class Lines final : public Logger {
 public:
  std::vector<std::string> all;  ///< "level message key=value …"

 private:
  void write(const LogRecord& line) noexcept override {
    std::string text = std::string(log_level_name(line.level)) + " " + std::string(line.message);
    for (const auto& field : line.fields) {
      text += " " + std::string(field.key) + "=";
      if (const auto* value = std::get_if<std::string_view>(&field.value)) text += *value;
      if (const auto* value = std::get_if<std::uint64_t>(&field.value)) text += std::to_string(*value);
    }
    all.push_back(std::move(text));
  }
};

class Throwing final : public Observer {
 public:
  void observe(const FlowEvent&) override { throw std::runtime_error("observer"); }
};

class Observed : public Sentences {
 protected:
  std::shared_ptr<MemoryObserver> seen = std::make_shared<MemoryObserver>();
  Lines lines;
  /// "kind(cause)" of each event since the last call, which must be of `x`, at this time, and in sequence.
  std::vector<std::string> told(ExchangeId x) {
    std::vector<std::string> all;
    const auto events = seen->seen();
    for (; looked_at < events.size(); ++looked_at) {
      const auto& event = events[looked_at];
      EXPECT_EQ(event.exchange, x);
      EXPECT_EQ(event.flow, "f");
      EXPECT_EQ(event.at, clock.wall());
      EXPECT_EQ(event.sequence, looked_at + 1);
      all.push_back(std::string(to_string(event.kind)) + (event.cause.empty() ? "" : "(" + event.cause + ")"));
    }
    return all;
  }
  std::size_t looked_at = 0;
};
using Events = std::vector<std::string>;

TEST_F(Observed, FLOW_22_every_kind_of_event_is_told_with_exchange_time_and_sequence_to_each_observer) {
  auto log = std::make_shared<LogObserver>(lines);
  lines.set_level(LogLevel::debug);
  std::string way;
  auto options = keyed(*store, *keys);
  options.key = [](const Exchange& x) -> std::optional<std::string> {
    if (x.reference.empty()) return std::nullopt;
    return x.reference;
  };
  options.observers = {std::make_shared<Throwing>(), seen, log};
  options.second_phase.attempts = 1;
  options.log = &lines;
  Flow flow("f", std::move(options));
  flow.group("main", {record.stage("a", Effect::external), func("way", [&](Exchange& x) -> Result<Vote> {
                        if (way == "abort") x.abort("no_credit");
                        return Vote();
                      })});
  auto good = exchange();
  good->reference = "k";
  clock.advance(seconds(1));
  EXPECT_EQ(run(flow, good).kind, OutcomeKind::committed);
  EXPECT_EQ(told(good->id()), (Events{"begin", "committed"}));
  settle_lane();

  clock.advance(seconds(1));
  auto again = exchange();
  again->reference = "k";
  EXPECT_TRUE(run(flow, again).replayed);
  EXPECT_EQ(told(again->id()), (Events{"idempotent_hit"}));

  clock.advance(seconds(1));
  way = "abort";
  auto declined = exchange();
  EXPECT_EQ(run(flow, declined).kind, OutcomeKind::aborted);
  EXPECT_EQ(told(declined->id()), (Events{"begin", "aborted(no_credit)"}));
  settle_lane();

  clock.advance(seconds(1));
  way.clear();
  record.failing_commit = "a";
  record.failing_times = 1000;
  auto doubtful = exchange();
  EXPECT_EQ(run(flow, doubtful).kind, OutcomeKind::in_doubt);
  EXPECT_EQ(told(doubtful->id()), (Events{"begin", "in_doubt"}));
  settle_lane();
  record.failing_times = 0;
  EXPECT_EQ(recover(flow).committed, 1u);
  EXPECT_EQ(told(doubtful->id()), (Events{"recovered", "committed"}));

  // The log has them too, and that the first observer fails.
  Events events, failed;
  for (const auto& line : lines.all) (line.find("observer") == std::string::npos ? events : failed).push_back(line);
  EXPECT_EQ(events.size(), seen->seen().size());
  EXPECT_EQ(failed.size(), seen->seen().size());
  EXPECT_EQ(events.at(0), "debug begin flow=f exchange=" + to_string(good->id()) + " sequence=1 cause=");
  EXPECT_EQ(events.at(4), "info aborted flow=f exchange=" + to_string(declined->id()) + " sequence=5 cause=no_credit");
  EXPECT_TRUE(events.at(6).starts_with("warn in_doubt")) << events.at(6);
  EXPECT_EQ(failed.at(0), "warn an observer of flow failed and was ignored flow=f why=observer");
}

TEST_F(Observed, FLOW_22_the_memory_journal_keeps_the_newest_up_to_its_bound) {
  MemoryObserver small(3);
  for (std::uint64_t i = 1; i <= 10; ++i) {
    FlowEvent event;
    event.sequence = i;
    small.observe(event);
  }
  ASSERT_EQ(small.seen().size(), 3u);
  EXPECT_EQ(small.seen().front().sequence, 8u);
}

/// Refuses the k-th Commit: nothing was written, and the store says so.
class Refusing final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  int at = -1;
  int seen = 0;
  void submit(store::PendingCommit& pending) override {
    if (seen++ != at) return inner_.submit(pending);
    pending.outcome = fail(FailureKind::unavailable, "disk_full", "");
    pending.lane->post(pending);
  }
};

TEST_F(Observed, FLOW_22_a_journal_that_cannot_be_written_before_the_decision_aborts_without_effect) {
  for (const int at_intent : {0, 1}) {
    SCOPED_TRACE(at_intent);
    record.calls.clear();
    Refusing refusing(*store);
    refusing.at = at_intent;
    Flow flow("f", {.store = &refusing});
    flow.group("main", {record.stage("a", Effect::external), func("debit", [](Exchange& x) -> Result<Vote> {
                          x.draft().add(at("ann"), 10);
                          return Vote();
                        }),
                        record.stage("b", Effect::external)});
    const Outcome outcome = run(flow);
    settle_lane();
    EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
    EXPECT_EQ(outcome.cause->code(), "disk_full");
    EXPECT_EQ(record.calls, at_intent == 0 ? Events{} : (Events{"a.prepare", "a.abort(1)"}));
    EXPECT_EQ(balance("ann"), 0);
    EXPECT_EQ(open(), 0u);
  }
}

TEST_F(Observed, FLOW_22_an_intent_of_which_the_store_cannot_say_is_not_begun_and_is_ended_by_a_sweep) {
  for (const bool applied : {true, false}) {
    SCOPED_TRACE(applied);
    record.calls.clear();
    OddStore odd(*store);
    odd.at = 0;
    odd.applies = applied;
    Flow flow("f", {.store = &odd});
    flow.group("main", {record.stage("a", Effect::external)});
    const Outcome outcome = run(flow);
    settle_lane();
    EXPECT_NE(outcome.kind, OutcomeKind::committed);
    EXPECT_EQ(count("a.prepare"), 0u) << "without its intent nothing is asked outside";
    EXPECT_EQ(open(), applied ? 1u : 0u);
    recover(flow);
    EXPECT_EQ(open(), 0u);
    EXPECT_EQ(count("a.commit"), 0u);
  }
}

TEST_F(Observed, FLOW_22_at_the_decision_it_is_an_unknown_outcome) {
  OddStore odd(*store);
  odd.at = 0;
  Flow flow("f", {.store = &odd});
  flow.group("main", {func("debit", [&odd](Exchange& x) -> Result<Vote> {
                        x.draft().add(at("ann"), 10);
                        odd.at = odd.seen;
                        return Vote();
                      })});
  struct Mute final : testing_support::ForwardingStore {
    using ForwardingStore::ForwardingStore;
    void submit(store::PendingCommit& pending) override {
      pending.outcome = fail(FailureKind::unknown_outcome, "", "lost");
      pending.lane->post(pending);
    }
  } mute(*store);
  flow.options().store = &mute;
  const Outcome outcome = run(flow);
  EXPECT_EQ(outcome.kind, OutcomeKind::unknown);
  ASSERT_TRUE(outcome.cause);
  EXPECT_EQ(outcome.cause->kind(), FailureKind::unknown_outcome);
}

// --- FLOW-32 ------------------------------------------------------------------------------------

class Profiled : public Sentences {
 protected:
  std::vector<std::string> phases_told;  // "stage/phase took_ms"
  Duration total{};
  std::string line;
  std::size_t calls = 0;
  FlowOptions profiled() {
    FlowOptions options;
    options.store = store.get();
    options.profiler = [this](const Exchange&, const Profile& profile) {
      ++calls;
      phases_told.clear();
      for (const auto& t : profile.stages)
        phases_told.push_back(std::string(t.stage) + "/" + std::string(t.phase) + " " + std::to_string(t.took / milliseconds(1)));
      total = profile.total;
      line = profile.line();
    };
    return options;
  }
  StagePtr naps(std::string name, Duration time) {
    return task_func(std::move(name), [time](Exchange&) -> Task<Result<Vote>> {
      auto napping = sleep_for(time);
      const FailureKind cut = co_await napping;
      Result<Vote> vote = Vote();
      if (cut != FailureKind::none) vote = fail(cut, "cut", "");
      co_return vote;
    });
  }
};

TEST_F(Profiled, FLOW_32_the_profile_names_each_phase_and_is_one_line) {
  Flow flow("f", profiled());
  flow.group("main", {func("check", [&](Exchange&) -> Result<Vote> {
                        clock.advance(microseconds(12));
                        return Vote();
                      }),
                      record.stage("debit")});
  run(flow);
  EXPECT_EQ(line, "check/prepare=12µs debit/prepare=0µs debit/commit=0µs total=12µs");
}

TEST_F(Profiled, FLOW_32_as_data_too_each_try_of_each_phase_in_order_and_the_total_by_the_wall) {
  record.failing_commit = "a";
  record.failing_times = 1;
  Flow flow("f", profiled());
  flow.group("main", {naps("host", milliseconds(30)), record.stage("a"), record.stage("b")});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
  EXPECT_EQ(phases_told, (std::vector<std::string>{"host/prepare 30", "a/prepare 0", "b/prepare 0", "a/commit 0", "a/commit 0", "b/commit 0"}));
  EXPECT_EQ(total, milliseconds(50)) << "the nap, and the wait before the second commit, which is no phase";
  EXPECT_EQ(calls, 1u);
}

TEST_F(Profiled, FLOW_32_an_abort_has_its_phases_too) {
  Flow flow("f", profiled());
  flow.group("main", {record.stage("a"), naps("host", milliseconds(30)), record.stage("b", Effect::none, [&](Exchange&) -> Result<Vote> {
                        clock.advance(milliseconds(5));
                        return fail(FailureKind::rejected, "no", "");
                      })});
  EXPECT_EQ(run(flow).kind, OutcomeKind::aborted);
  EXPECT_EQ(phases_told, (std::vector<std::string>{"a/prepare 0", "host/prepare 30", "b/prepare 5", "b/abort 0", "a/abort 0"}));
  EXPECT_EQ(total, milliseconds(35));
}

TEST_F(Profiled, FLOW_32_off_reads_no_clock_per_stage) {
  class Counting final : public Clock {
   public:
    int reads = 0;
    Instant now() noexcept override { return ++reads, Instant(seconds(1)); }
    WallTime wall() noexcept override { return ++reads, WallTime(milliseconds(1)); }
  } counting;
  const auto reads = [&](std::size_t stages, bool on) {
    Lane own(counting);
    FlowOptions options;
    if (on) options.profiler = [](const Exchange&, const Profile&) {};
    Flow flow("f", std::move(options));
    std::vector<StagePtr> all;
    for (std::size_t i = 0; i < stages; ++i) {
      all.push_back(record.stage("s"));
      all.push_back(task_func("t", [](Exchange&) -> Task<Result<Vote>> {
        Result<Vote> vote = Vote();
        co_return vote;
      }));
    }
    flow.group("main", std::move(all));
    RunOptions run_options;
    run_options.lane = &own;
    bool done = false;
    auto x = exchange();
    counting.reads = 0;
    flow.run(x, std::move(run_options), [](void* d, Outcome) noexcept { *static_cast<bool*>(d) = true; }, &done);
    EXPECT_TRUE(done);
    return counting.reads;
  };
  EXPECT_EQ(reads(1, false), 0);
  EXPECT_EQ(reads(10, false), 0);
  EXPECT_GE(reads(10, true), 60) << "it is counted where it is read";
}

}  // namespace
}  // namespace sluice::flow
