// FLOW-21: an exchange that sleeps until an outside event or a timeout.
#include "flow/draft_codec.hpp"
#include "flow/flow_fixture.hpp"
#include "flow/records.hpp"

namespace sluice::flow {
namespace {

store::KvKey row(std::string key) { return {"app", "accounts", std::move(key)}; }

class Pause : public FlowTest {
 protected:
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  std::vector<std::string> asked;  // wake tokens, as the outside party got them

  /// before → asks and sleeps → after; takes 10 from ann before the pause.
  std::unique_ptr<Flow> make(store::Store* on, Effect effect = Effect::store, idempotency::Keys* keys = nullptr,
                             Duration timeout = seconds(60)) {
    FlowOptions options;
    options.store = on;
    options.keys = keys;
    if (keys != nullptr) options.key = [](const Exchange&) { return std::optional<std::string>("k"); };
    auto flow = std::make_unique<Flow>("f", std::move(options));
    Awaited awaited;
    awaited.timeout = timeout;
    awaited.ask = [this](Exchange& x) -> Status {
      asked.push_back(x.token());
      return {};
    };
    awaited.answer = [](Exchange& x, ByteView answer) -> Result<Vote> {
      if (answer == "no") {
        x.respond(Reply::from(Failure(FailureKind::rejected, "host_said_no", "")));
        x.abort("host_said_no");
        return Vote();
      }
      x.draft().put(row("answer"), Bytes(answer));
      return Vote();
    };
    awaited.commit = [this](Exchange&) -> Status {
      record.calls.push_back("host.commit");
      return {};
    };
    awaited.abort = [this](Exchange&, bool prepared) -> Status {
      record.calls.push_back(prepared ? "host.abort(1)" : "host.abort(0)");
      return {};
    };
    flow->group("main", {func("before",
                              [this](Exchange& x) -> Result<Vote> {
                                record.calls.push_back("before");
                                x.draft().take(row("ann"), 10, "insufficient_funds");
                                return Vote();
                              }),
                         await_answer("host", effect, std::move(awaited)),
                         func("after", [this](Exchange& x) -> Result<Vote> {
                           record.calls.push_back("after");
                           x.draft().add(row("bob"), 10);
                           x.respond(Reply::ok("done"));
                           return Vote();
                         })});
    return flow;
  }
  std::int64_t number(const std::string& key) {
    auto rows = store::ask_now(*store, store::GetRows{{row(key)}});
    return rows->at(0) ? rows->at(0)->number : 0;
  }
  void fund() { (void)store::commit_and_wait(*store, {.then = {store::KvAdd{row("ann"), 25}}}); }
  std::size_t paused() { return store::ask_now(*store, store::ListOpen{{}, store::OpenState::paused, 10})->size(); }
};

TEST_F(Pause, FLOW_21_an_outside_event_wakes_it_and_prepare_goes_on) {
  for (const bool durable : {false, true}) {
    SCOPED_TRACE(durable ? "durable" : "in memory");
    record.calls.clear();
    asked.clear();
    auto flow = std::make_unique<Flow>("none");
    if (durable) {
      fund();
      flow = make(store.get());
    } else {
      flow->group("main", {await_answer("host", Effect::none, {.ask = [&](Exchange& x) -> Status { asked.push_back(x.token()); return {}; },
                                                               .answer = [&](Exchange&, ByteView a) -> Result<Vote> { record.calls.push_back("answer " + Bytes(a)); return Vote(); },
                                                               .commit = {}, .abort = {}})});
    }
    auto running = start(*flow, exchange());
    settle_lane();
    ASSERT_EQ(asked.size(), 1u);
    EXPECT_FALSE(running->outcome) << "it sleeps";
    EXPECT_TRUE(flow->expects(Namespace("app"), asked[0]));
    EXPECT_TRUE(wake(*flow, asked[0]).has_value());
    settle_lane();
    ASSERT_TRUE(running->outcome);
    EXPECT_EQ(running->outcome->kind, OutcomeKind::committed);
    EXPECT_EQ(record.calls, durable ? (std::vector<std::string>{"before", "after", "host.commit"}) : (std::vector<std::string>{"answer yes"}));
    EXPECT_FALSE(flow->expects(Namespace("app"), asked[0]));
    if (durable) {
      EXPECT_EQ(number("ann"), 15);
      EXPECT_EQ(number("bob"), 10);
      EXPECT_EQ(paused(), 0u);
    }
    const Status again = wake(*flow, asked[0]);
    EXPECT_EQ(again.error().kind(), FailureKind::not_found) << "a wake-up after the end says so";
  }
}

TEST_F(Pause, FLOW_21_a_paused_exchange_survives_restarts_with_its_draft_and_deadline) {
  fund();
  {
    auto before = make(store.get());
    start(*before, exchange());
    settle_lane();
    EXPECT_EQ(paused(), 1u);
  }
  const std::string token = asked.at(0);
  for (int restart = 0; restart < 3; ++restart) {
    auto flow = make(store.get());
    EXPECT_EQ(recover(*flow).paused, 1u);
    EXPECT_TRUE(flow->expects(Namespace("app"), token));
    EXPECT_EQ(recover(*flow).found, 0u) << "a second sweep leaves it alone";
  }
  auto flow = make(store.get());
  recover(*flow);
  record.calls.clear();
  EXPECT_TRUE(wake(*flow, token));
  settle_lane();
  EXPECT_EQ(record.calls, (std::vector<std::string>{"after", "host.commit"})) << "not run from the start again";
  EXPECT_EQ(number("ann"), 15) << "the draft from before the pause took effect";
  EXPECT_EQ(number("bob"), 10);
  EXPECT_EQ(asked.size(), 1u);
  EXPECT_EQ(store::ask_now(*store, store::ListOpen{})->size(), 0u);
}

TEST_F(Pause, FLOW_21_a_newer_exchange_with_the_same_token_does_not_end_the_one_that_slept_before_the_restart) {
  fund();
  const auto shared = [&] {
    auto flow = std::make_unique<Flow>("f", FlowOptions{.store = store.get()});
    flow->group("main", {func("host", [](Exchange& x) -> Result<Vote> {
      if (x.wake() != nullptr) {
        x.respond(Reply::ok(x.wake()->payload));
        return Vote();
      }
      if (auto expected = x.expect_wake("box"); !expected) return fail(expected.error());
      return Vote::pause(seconds(600));
    }, Effect::store)});
    return flow;
  };
  {
    auto before = shared();
    start(*before, exchange());
    settle_lane();
    EXPECT_EQ(paused(), 1u);
  }
  auto flow = shared();
  const auto young = start(*flow, exchange());  // the doors are open already
  settle_lane();
  EXPECT_EQ(paused(), 2u);
  recover(*flow);
  settle_lane();
  EXPECT_EQ(paused(), 2u) << "the old one sleeps on";
  EXPECT_TRUE(wake(*flow, "box"));
  settle_lane();
  ASSERT_TRUE(young->outcome);
  EXPECT_EQ(young->outcome->kind, OutcomeKind::committed);
  EXPECT_EQ(paused(), 1u);
  recover(*flow);
  EXPECT_TRUE(wake(*flow, "box")) << "announced by the next sweep";
  settle_lane();
  EXPECT_EQ(store::ask_now(*store, store::ListOpen{})->size(), 0u);
}

TEST_F(Pause, FLOW_21_without_an_answer_it_times_out_also_when_the_time_passed_while_it_was_down) {
  for (const bool restarted : {false, true}) {
    SCOPED_TRACE(restarted ? "restarted" : "live");
    record.calls.clear();
    fund();
    auto flow = make(store.get(), Effect::external);
    auto running = start(*flow, exchange());
    settle_lane();
    if (restarted) {
      flow.reset();
      clock.advance_to(clock.now() + seconds(3600));
      flow = make(store.get(), Effect::external);
      recover(*flow);
      advance(milliseconds(5));
    } else {
      advance(seconds(59));
      EXPECT_FALSE(running->outcome);
      advance(seconds(2));
      ASSERT_TRUE(running->outcome);
      EXPECT_EQ(running->outcome->kind, OutcomeKind::aborted);
      EXPECT_EQ(running->outcome->cause->code(), "no_answer");
    }
    EXPECT_EQ(record.calls, (std::vector<std::string>{"before", "host.abort(0)"}));
    EXPECT_EQ(paused(), 0u);
  }
}

TEST_F(Pause, FLOW_21_an_answer_faster_than_the_pause_is_not_lost) {
  struct Asking : PendingWake {
    bool over = false;
  } asking;
  auto hasty = std::make_unique<Flow>("hasty", FlowOptions{.store = store.get()});
  Flow* target = hasty.get();
  hasty->group("main", {await_answer("host", Effect::store, {.ask = [&](Exchange& x) -> Status {
                                                               asking.ns = Namespace("app");
    asking.token = x.token();
                                                               asking.payload = "at once";
                                                               asking.lane = &lane;
                                                               asking.run = [](Job* job) noexcept { static_cast<Asking*>(static_cast<PendingWake*>(job))->over = true; };
                                                               target->wake(asking);
                                                               settle_lane();
                                                               return {};
                                                             },
                                                             .answer = [&](Exchange&, ByteView a) -> Result<Vote> { record.calls.push_back(Bytes(a)); return Vote(); },
                                                             .commit = {}, .abort = {}})});
  auto x = exchange();
  RunOptions options;
  options.lane = &lane;
  std::optional<Outcome> outcome;
  hasty->run(x, std::move(options), [](void* at, Outcome o) noexcept { *static_cast<std::optional<Outcome>*>(at) = std::move(o); }, &outcome);
  drive([&] { return outcome.has_value(); });
  settle_lane();
  EXPECT_EQ(outcome->kind, OutcomeKind::committed);
  EXPECT_EQ(record.calls, (std::vector<std::string>{"at once"}));
  EXPECT_TRUE(asking.over);
  EXPECT_TRUE(asking.answer);
}

TEST_F(Pause, FLOW_21_the_callers_deadline_answers_pending_and_the_key_answers_in_progress_then_the_reply) {
  fund();
  idempotency::Keys keys(clock, store.get(), {});
  auto flow = make(store.get(), Effect::store, &keys);
  RunOptions options;
  options.deadline = clock.now() + seconds(1);
  auto running = start(*flow, exchange(), std::move(options));
  advance(seconds(2));
  ASSERT_TRUE(running->outcome);
  EXPECT_EQ(running->outcome->kind, OutcomeKind::pending);
  RunOptions hurried;
  hurried.deadline = clock.now() + milliseconds(100);
  auto duplicate = start(*flow, exchange(), std::move(hurried));
  advance(seconds(1));
  ASSERT_TRUE(duplicate->outcome);
  EXPECT_NE(duplicate->outcome->kind, OutcomeKind::committed);
  EXPECT_FALSE(duplicate->outcome->replayed);
  EXPECT_TRUE(wake(*flow, asked.at(0)));
  settle_lane();
  const Outcome replay = run(*flow, exchange());
  EXPECT_TRUE(replay.replayed);
  EXPECT_EQ(replay.reply->body, "done");
  EXPECT_EQ(asked.size(), 1u) << "ran once";
}

TEST_F(Pause, FLOW_21_a_restart_after_the_key_was_claimed_by_the_pause_keeps_duplicates_off_and_replays) {
  fund();
  {
    idempotency::Keys keys(clock, store.get(), {});
    auto flow = make(store.get(), Effect::store, &keys);
    start(*flow, exchange());
    settle_lane();
  }
  idempotency::Keys keys(clock, store.get(), {});
  auto flow = make(store.get(), Effect::store, &keys);
  recover(*flow);
  const Outcome early = run(*flow, exchange());
  EXPECT_NE(early.kind, OutcomeKind::committed);
  ASSERT_TRUE(early.cause);
  EXPECT_EQ(early.cause->kind(), FailureKind::in_progress) << early.cause->to_string();
  EXPECT_TRUE(wake(*flow, asked.at(0)));
  settle_lane();
  advance(seconds(2));  // the end is written lazily
  const Outcome replay = run(*flow, exchange());
  EXPECT_TRUE(replay.replayed) << (replay.cause ? replay.cause->to_string() : "");
  EXPECT_EQ(number("ann"), 15);
}

TEST_F(Pause, FLOW_21_only_the_first_wake_up_counts_and_a_decline_aborts) {
  fund();
  auto flow = make(store.get(), Effect::external);
  auto running = start(*flow, exchange());
  settle_lane();
  EXPECT_TRUE(wake(*flow, asked[0], "no"));
  EXPECT_FALSE(wake(*flow, asked[0], "yes"));
  settle_lane();
  ASSERT_TRUE(running->outcome);
  EXPECT_EQ(running->outcome->kind, OutcomeKind::aborted);
  EXPECT_EQ(running->outcome->reply->code, "host_said_no");
  EXPECT_EQ(number("ann"), 25);
  EXPECT_FALSE(wake(*flow, "no such token"));
}

TEST_F(Pause, FLOW_21_pausing_without_a_token_or_inside_parallel_is_refused) {
  Flow bare("bare");
  bare.group("main", {func("p", [](Exchange&) -> Result<Vote> { return Vote::pause(seconds(1)); })});
  EXPECT_EQ(run(bare).cause->code(), "bad_pause");
  Flow both("both");
  both.group("main", {parallel("two", {func("p", [](Exchange& x) -> Result<Vote> {
                                         SLUICE_TRY(x.expect_wake("t"));
                                         return Vote::pause(seconds(1));
                                       })})});
  EXPECT_EQ(run(both).cause->code(), "pause_not_here");
}

TEST_F(Pause, G7_a_wake_token_belongs_to_a_namespace) {
  int told = 0;
  Flow same("same", {.store = store.get()});
  same.group("main", {func("ask", [](Exchange& x) -> Result<Vote> {
                        if (x.wake() != nullptr) return Vote();
                        SLUICE_TRY(x.expect_wake("order-7"));
                        return Vote::pause(seconds(5));
                      })});
  const auto sleep = [&](Namespace ns) {
    auto x = std::make_shared<Exchange>(ids.exchange(), std::move(ns), Bytes());
    RunOptions options;
    options.lane = &lane;
    same.run(std::move(x), std::move(options), [](void* at, Outcome o) noexcept {
      if (o.kind == OutcomeKind::committed) ++*static_cast<int*>(at);
    }, &told);
    settle_lane();
  };
  sleep(Namespace("app", true));  // shadow traffic came first
  sleep(Namespace("app"));
  EXPECT_TRUE(same.expects(Namespace("app"), "order-7")) << "shadow traffic kept live traffic from its token";
  EXPECT_TRUE(wake(same, "order-7"));
  settle_lane();
  EXPECT_EQ(told, 1);
  EXPECT_TRUE(same.expects(Namespace("app", true), "order-7")) << "a live wake-up woke shadow traffic";
  EXPECT_FALSE(same.expects(Namespace("app"), "order-7"));
}

TEST_F(Pause, FLOW_21_a_pause_is_told_so_that_the_permit_can_go_back) {
  auto flow = make(store.get());
  fund();
  struct Owner {
    int paused = 0, done = 0;
  } owner;
  RunOptions options;
  options.lane = &lane;
  options.on_pause = [](void* at) noexcept { ++static_cast<Owner*>(at)->paused; };
  flow->run(exchange(), std::move(options), [](void* at, Outcome) noexcept { ++static_cast<Owner*>(at)->done; }, &owner);
  settle_lane();
  EXPECT_EQ(owner.paused, 1);
  EXPECT_EQ(owner.done, 0);
  EXPECT_TRUE(wake(*flow, asked.at(0)));
  settle_lane();
  EXPECT_EQ(owner.paused, 1);
  EXPECT_EQ(owner.done, 1);
}

TEST(DraftCodec, FLOW_21_a_draft_round_trips_and_damage_is_found) {
  Draft draft;
  draft.require(store::KvVersionIs{row("a"), 7}, "read a");
  draft.guards.back().conflict = true;
  draft.take(row("b"), 5, "short", Reply::from(Failure(FailureKind::rejected, "short", "no money")));
  draft.require(store::KvAtMost{row("c"), 9}, "cap");
  draft.require(store::KvExists{row("d")}, "there");
  draft.put(row("e"), "value", -3);
  draft.put(row("f"), "", std::nullopt);
  draft.erase(row("g"));
  draft.publish("topic", "payload");
  const Bytes bytes = encode_draft(draft);
  auto back = decode_draft(bytes);
  ASSERT_TRUE(back) << back.error().to_string();
  EXPECT_EQ(encode_draft(*back), bytes);
  EXPECT_EQ(back->guards.size(), 4u);
  EXPECT_EQ(back->mutations.size(), 4u);
  for (std::size_t cut = 1; cut < bytes.size(); ++cut)
    EXPECT_FALSE(decode_draft(ByteView(bytes).substr(0, cut))) << "cut at " << cut;
  EXPECT_FALSE(decode_draft(bytes + "x"));
}

}  // namespace
}  // namespace sluice::flow
