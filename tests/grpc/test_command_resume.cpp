// Streams that were cut and come again: what is done stays done, in order, under whose mark.
#include <gmock/gmock.h>

#include "grpc/command_stream_fixture.hpp"
#include "sluice/stream/ledger.hpp"
#include "support/chaos_proxy.hpp"
#include "support/forwarding_store.hpp"

namespace sluice::transport {
namespace {

TEST_F(CommandStreamTest, STREAM_15_without_a_durable_store_resume_is_refused) {
  hooks.marks = nullptr;
  start();
  Upload up(channel, {{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", "1"}});
  const auto status = up.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_NE(status.error_message().find("durable"), std::string::npos);
}

TEST_F(CommandStreamTest, STREAM_15_a_resumed_stream_goes_on_after_what_is_done_and_answers_for_the_whole) {
  start();
  {
    Upload up(channel, {{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", "1"}});
    EXPECT_EQ(up.done(), 0u);
    up.send("note", note("a", 1), "a", 1);
    up.send("decline", "{}", "", 2);
    up.send("note", note("a", 2), "a", 3);
    ASSERT_TRUE(up.finish().ok());
    EXPECT_EQ(up.reply.done(), 3u);
  }
  Upload up(channel, {{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", "5"}});
  EXPECT_EQ(up.done(), 3u);
  up.send("note", note("a", 2), "a", 3);  // done already
  up.send("note", note("a", 3), "a", 4);
  ASSERT_TRUE(up.finish().ok());
  EXPECT_EQ(up.reply.duplicates(), 1u);
  EXPECT_EQ(up.reply.accepted(), 4u);
  EXPECT_EQ(up.reply.succeeded(), 3u);
  EXPECT_EQ(up.reply.failed().at("handler_error"), 1u);
  ASSERT_EQ(up.reply.first_failures_size(), 1);
  EXPECT_EQ(up.reply.first_failures(0).sequence(), 2u);
  EXPECT_EQ(number("counts", "a"), 3);
}

TEST_F(CommandStreamTest, STREAM_15_a_connection_that_still_works_under_an_old_epoch_cannot_move_the_mark) {
  start();
  Upload old(channel, {{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", "1"}});
  EXPECT_EQ(old.done(), 0u);
  Upload young(channel, {{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", "2"}});
  EXPECT_EQ(young.done(), 0u);
  young.send("note", note("a", 1), "a", 1);
  ASSERT_TRUE(young.finish().ok());
  old.send("note", note("a", 1), "a", 1);
  EXPECT_EQ(old.finish().error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(number("counts", "a"), 1) << "its message was answered from the other's reply";
}

TEST_F(CommandStreamTest, STREAM_15_a_mark_refused_while_the_stream_is_idle_ends_it_once) {
  start();
  for (int round = 0; round < 8; ++round) {
    const std::string id = "s" + std::to_string(round);
    Upload old(channel, {{"x-sluice-stream", id}, {"x-sluice-stream-epoch", "1"}});
    EXPECT_EQ(old.done(), 0u);
    Upload young(channel, {{"x-sluice-stream", id}, {"x-sluice-stream-epoch", "2"}});
    EXPECT_EQ(young.done(), 0u);
    for (std::uint64_t n = 1; n <= 256; ++n)  // a mark is due after these
      old.send("decline", "{}", std::to_string(n), n);
    const auto status = old.end();  // without closing its side
    EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED) << status.error_message();
  }
}

// A command ends at the call's deadline too, mostly a moment before the call is told.
TEST_F(CommandStreamTest, STREAM_15_what_runs_at_the_calls_deadline_is_not_done) {
  std::deque<Timer> timers;
  add("late", rpc::KeyUse::required, [&](rpc::Invocation& invocation) {
    timers.emplace_back().arm(*invocation.lane, invocation.command.deadline, [](void* one) noexcept {
      static_cast<rpc::Invocation*>(one)->finish(rpc::Answer::of(Failure(FailureKind::timeout, "deadline", "too slow")));
    }, &invocation);
  });
  start();
  {
    Upload up(channel, {{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", "1"}}, milliseconds(400));
    for (std::uint64_t n = 1; n <= 200; ++n) up.send("late", "{}", "k" + std::to_string(n), n);
    EXPECT_EQ(up.finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  EXPECT_TRUE(wait_until([&] { return door->drained(); }));
  Upload up(channel, {{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", "2"}});
  EXPECT_EQ(up.done(), 0u);
  EXPECT_TRUE(up.finish().ok());
}

// A balance by key, set in the order sent; 1 fails the first time for a passing reason.
class ResumedOrderTest : public CommandStreamTest {
 protected:
  ResumedOrderTest() {
    options.stream.retry.attempts = 1;
    add("set", rpc::KeyUse::required, [this](rpc::Invocation& invocation) {
      const std::int64_t n = std::stoll(invocation.command.payload);
      if (n == 1 && ones++ == 0)
        return invocation.finish(rpc::Answer::of(Failure(FailureKind::unavailable, "down", "try again")));
      store::Commit commit;
      commit.then.push_back(store::KvPut{{"shop", "balance", "b"}, "", n});
      invocation.finish_with(std::move(commit), Reply::ok("{}"));
    });
    add("first_held", rpc::KeyUse::none, [this](rpc::Invocation& invocation) {
      if (waits++ != 0) return invocation.finish(rpc::Answer::of(Reply::ok("{}")));
      given_up.link(
          invocation.scope,
          [](void* owner) noexcept {
            auto& one = *static_cast<rpc::Invocation*>(owner);
            one.finish(rpc::Answer::of(Failure(one.scope.reason(), "given_up", "held")));
          },
          &invocation);
    });
  }
  void reopen() {
    door->stop();
    door = std::make_unique<GrpcDoor>(registry, clock, std::vector<Lane*>{&lane.lane()}, options, hooks);
    ASSERT_TRUE(door->start());
    channel = connect(grpc::InsecureChannelCredentials());
  }
  void send_all(Upload& up) {
    up.send("first_held", "{}", "a", 1), up.send("set", "1", "b", 2), up.send("set", "2", "b", 3);
  }
  static std::map<std::string, std::string> epoch(int n) {
    return {{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", std::to_string(n)}};
  }
  std::atomic<int> ones{0}, waits{0};
  CancelListener given_up;
};

TEST_F(ResumedOrderTest, STREAM_15_what_failed_before_a_cut_does_not_run_after_later_messages_of_its_key) {
  start();
  {
    Upload up(channel, epoch(1));
    send_all(up);
    EXPECT_TRUE(wait_until([&] { return number("balance", "b") == 2; }));
    up.context.TryCancel();
    EXPECT_FALSE(up.finish().ok());
  }
  Upload up(channel, epoch(2));
  EXPECT_EQ(up.done(), 0u) << "the first held on, so nothing of it is marked";
  send_all(up);
  ASSERT_TRUE(up.finish().ok());
  EXPECT_EQ(number("balance", "b"), 2) << "1 is not set after 2";
  EXPECT_EQ(ones, 1) << "it was told, not run";
  EXPECT_EQ(up.reply.failed().at("handler_error"), 1u);
  ASSERT_EQ(up.reply.first_failures_size(), 1);
  EXPECT_EQ(up.reply.first_failures(0).sequence(), 2u);
  EXPECT_EQ(up.reply.first_failures(0).code(), "down");
  EXPECT_EQ(up.reply.first_failures(0).detail(), "try again");
  EXPECT_EQ(up.reply.done(), 3u);
}

// As above, but the store refuses to say that it failed: then 2 must not run either.
TEST_F(ResumedOrderTest, STREAM_15_a_failure_that_cannot_be_made_durable_stops_its_key) {
  class NoMarks final : public testing_support::ForwardingStore {
   public:
    using ForwardingStore::ForwardingStore;
    void submit(store::PendingCommit& pending) override {
      if (seen_++ == 0) return inner_.submit(pending);  // the stream is taken over
      pending.outcome = fail(FailureKind::unavailable, "disk", "the disk is full");
      pending.lane->post(pending);
    }
    std::atomic<int> seen_{0};
  } full(*store);
  hooks.marks = &full;
  start();
  {
    Upload up(channel, epoch(1));
    up.send("set", "1", "b", 1), up.send("set", "2", "b", 2);
    const auto status = up.finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
  }
  EXPECT_EQ(number("balance", "b"), 0);
  hooks.marks = store.get();
  reopen();
  Upload up(channel, epoch(2));
  EXPECT_EQ(up.done(), 0u);
  up.send("set", "1", "b", 1), up.send("set", "2", "b", 2);
  ASSERT_TRUE(up.finish().ok());
  EXPECT_EQ(up.reply.succeeded(), 2u);
  EXPECT_EQ(number("balance", "b"), 2);
}

/// Time that passes for the store.
class LaterStore final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  WallTime now() override { return inner_.now() + later; }
  milliseconds later{0};
};

TEST_F(CommandStreamTest, STREAM_15_a_stream_that_was_cut_may_come_again_for_as_long_as_its_keys_are_kept) {
  LaterStore later(*store);
  hooks.marks = &later;
  start();
  const auto epoch = [](int n) {
    return std::map<std::string, std::string>{{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", std::to_string(n)}};
  };
  {
    Upload up(channel, epoch(1));
    up.send("hold", "{}", "a", 1), up.send("note", note("b", 1), "b", 2);
    EXPECT_TRUE(wait_until([&] { return number("counts", "b") == 1; }));
    up.context.TryCancel();
    EXPECT_FALSE(up.finish().ok());
  }
  EXPECT_TRUE(wait_until([&] { return door->drained(); }));
  later.later = std::chrono::hours(24 * 7);
  {
    Upload up(channel, epoch(2));
    const auto status = up.finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_THAT(status.error_message(), testing::HasSubstr("7 days ago"));
    EXPECT_EQ(from_grpc_status(status).code(), "stream_too_old");
  }
  later.later = std::chrono::hours(24 * 5);
  Upload up(channel, epoch(3));
  EXPECT_EQ(up.done(), 0u) << "a week had not passed";
  EXPECT_TRUE(up.finish().ok());
}

TEST_F(CommandStreamTest, STREAM_15_a_stream_that_ended_in_good_order_may_come_again_at_any_time) {
  LaterStore later(*store);
  hooks.marks = &later;
  start();
  for (std::uint64_t n = 1; n <= 3; ++n) {
    Upload up(channel, {{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", std::to_string(n)}});
    EXPECT_EQ(up.done(), n - 1);
    up.send("note", note("b", static_cast<std::int64_t>(n)), "b", n);
    ASSERT_TRUE(up.finish().ok());
    later.later += std::chrono::hours(24 * 100);
  }
  EXPECT_EQ(number("counts", "b"), 3);
}

TEST_F(CommandStreamTest, STREAM_15_the_keys_of_a_stream_are_kept_for_a_week) {
  start();
  Upload up(channel, {{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", "1"}});
  up.send("note", note("b", 1), "b", 1);
  ASSERT_TRUE(up.finish().ok());
  const auto scope = idempotency::make_scope(Namespace("shop"), "ann", "note", 1, "stream:s:1");
  const auto row = std::get<store::FindKey::Answer>(*store::ask_and_wait(*store, store::FindKey{scope}));
  ASSERT_TRUE(row);
  EXPECT_GE(row->expires_at - store->now(), stream::kKeysKept - seconds(60));
}

TEST_F(CommandStreamTest, STREAM_15_the_marks_of_two_principals_are_apart_however_their_names_join) {
  hooks.authenticate = [](std::string_view token) -> Result<std::shared_ptr<const rpc::Principal>> {
    return std::make_shared<rpc::Principal>(rpc::Principal{std::string(token), {"*:*"}, true});
  };
  start();
  {
    Upload one(channel, {{"authorization", "Bearer p"}, {"x-sluice-stream", "live/x"}, {"x-sluice-stream-epoch", "1"}});
    EXPECT_EQ(one.done(), 0u);
    one.send("note", note("a", 1), "a", 1);
    ASSERT_TRUE(one.finish().ok());
  }
  Upload two(channel, {{"authorization", "Bearer p/live"}, {"x-sluice-stream", "x"}, {"x-sluice-stream-epoch", "2"}});
  EXPECT_EQ(two.done(), 0u);
  EXPECT_TRUE(two.finish().ok());
}

// Cut at any byte, as often as it takes: nothing is lost, doubled or out of its key's order.
TEST_F(CommandStreamTest, STREAM_15_connections_cut_at_random_bytes_lose_and_double_nothing) {
  start();
  const int cuts = 1000;
  test::ChaosProxy proxy(door->port());
  sim::SimRandom dice(11);
  int was_cut = 0, streams = 0;
  std::uint64_t epoch = 0;
  std::map<std::string, std::int64_t> sent;
  while (was_cut < cuts) {
    const std::string id = "s" + std::to_string(++streams);
    const std::uint64_t total = 40 + dice.below(200);
    // What each message is, whenever it is sent.
    std::vector<std::pair<std::string, std::int64_t>> plan;
    for (std::uint64_t i = 0; i < total; ++i) {
      const std::string key = id + "k" + std::to_string(dice.below(4));
      plan.emplace_back(key, ++sent[key]);
    }
    for (int attempt = 0;; ++attempt) {
      ASSERT_LT(attempt, 200);
      // Later attempts get further, so that each stream comes to its end.
      const std::size_t cut_at = 1 + dice.below(4500 + static_cast<std::uint64_t>(attempt) * 2000);
      proxy.set({.reset_after = cut_at});
      grpc::ChannelArguments arguments;
      arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      const auto through = grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(proxy.port()),
                                                     grpc::InsecureChannelCredentials(), arguments);
      Upload up(through, {{"x-sluice-stream", id}, {"x-sluice-stream-epoch", std::to_string(++epoch)}}, seconds(3));
      const auto done = up.done();
      for (std::uint64_t at = done.value_or(total) + 1; at <= total; ++at) {
        const auto& [key, n] = plan[at - 1];
        if (!up.send("note", note(key, n), key, at)) break;
      }
      const auto status = up.finish();
      if (status.ok()) {
        ASSERT_EQ(up.reply.succeeded(), total) << up.reply.ShortDebugString().substr(0, 800);
        ASSERT_EQ(up.reply.done(), total);
        break;
      }
      // A call that never left is sent again by gRPC itself, over a connection that is cut at the same byte.
      const bool never_left = status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED && cut_at < 1000;
      ASSERT_TRUE(never_left || status.error_code() == grpc::StatusCode::UNAVAILABLE || status.error_code() == grpc::StatusCode::CANCELLED)
          << status.error_code() << " " << status.error_message() << ", cut at byte " << cut_at;
      ++was_cut;
    }
  }
  for (const auto& [key, count] : sent) {
    ASSERT_EQ(number("counts", key), count) << key;
    ASSERT_EQ(number("notes", key), count) << key;
  }
}

}  // namespace
}  // namespace sluice::transport
