// Commands/ExecuteStream over real connections: counts, order, flow control, drain.
#include <unistd.h>

#include <fstream>

#include "grpc/command_stream_fixture.hpp"

namespace sluice::transport {
namespace {

TEST_F(CommandStreamTest, STREAM_2_as_many_streams_are_open_at_once_as_calls_may_be) {
  options.max_calls = 2;
  start();
  std::vector<std::unique_ptr<Upload>> open;
  for (int i = 0; i < 2; ++i) {
    open.push_back(std::make_unique<Upload>(channel));
    ASSERT_TRUE(open.back()->send("note", note("a", i + 1)));
  }
  ASSERT_TRUE(wait_until([&] { return runs == 2; }));
  Upload third(channel);
  const grpc::Status refused = third.end();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << refused.error_message();
  EXPECT_EQ(third.trailing("grpc-retry-pushback-ms"), "1000");
  EXPECT_TRUE(execute("echo", "{}").status.ok()) << "calls have a bound of their own";
  EXPECT_TRUE(open.front()->finish().ok());
  open.erase(open.begin());
  EXPECT_TRUE(wait_until([&] {
    Upload next(channel);
    return next.finish().ok();
  }));
  EXPECT_TRUE(open.front()->finish().ok());
}

TEST_F(CommandStreamTest, STREAM_1_and_14_each_message_is_a_command_and_the_stream_answers_once_with_counts) {
  start();
  Upload up(channel);
  EXPECT_TRUE(up.send("note", note("a", 1), "a", 0, "key-1"));
  EXPECT_TRUE(up.send("decline", "{}", {}, 0, "key-2"));
  EXPECT_TRUE(up.send("note", note("a", 1), "a", 0, "key-1"));  // the same again
  EXPECT_TRUE(up.send("nothing", "{}"));
  EXPECT_TRUE(up.send("note", "{not json"));
  const auto status = up.finish();
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(up.reply.accepted(), 5u);
  EXPECT_EQ(up.reply.succeeded(), 2u);
  EXPECT_EQ(up.reply.replayed(), 1u);
  EXPECT_EQ(up.reply.done(), 5u);
  EXPECT_EQ(up.reply.failed().at("handler_error"), 3u);
  ASSERT_EQ(up.reply.first_failures_size(), 3);
  EXPECT_EQ(up.reply.first_failures(0).sequence(), 2u);
  EXPECT_EQ(up.reply.first_failures(0).code(), "no_funds");
  EXPECT_EQ(up.reply.first_failures(1).kind(), "not_found");
  EXPECT_EQ(up.reply.first_failures(2).code(), "bad_json");
  EXPECT_EQ(number("counts", "a"), 1);
}

TEST_F(CommandStreamTest, STREAM_11_messages_of_one_key_and_those_without_take_effect_in_their_order) {
  start();
  Upload up(channel);
  std::map<std::string, int> sent;
  for (int i = 0; i < 600; ++i) {
    const std::string key = i % 3 == 0 ? "" : "k" + std::to_string(i % 7);
    const std::string row = key.empty() ? "none" : key;
    ASSERT_TRUE(up.send("note", note(row, ++sent[row]), key));
  }
  ASSERT_TRUE(up.finish().ok());
  EXPECT_EQ(up.reply.succeeded(), 600u) << up.reply.ShortDebugString().substr(0, 500);
  for (const auto& [key, count] : sent) EXPECT_EQ(number("counts", key), count);
}

std::int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::int64_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

// With SLUICE_LONG=1 for a minute.
TEST_F(CommandStreamTest, STREAM_10_a_stalled_handler_stops_the_client_and_memory_stays) {
  options.stream.credit.messages = 20;
  options.stream.message_deadline = seconds(90);
  start();
  Upload up(channel, {}, seconds(100));
  std::atomic<int> sent = 0;
  std::atomic<bool> stop = false;
  const std::string big(20'000, ' ');
  std::thread pusher([&] {
    while (!stop && sent < 2000 && up.send("hold", "{" + big + "}", "k" + std::to_string(sent))) ++sent;
  });
  // Held: as many as the credit. Written: what fits into the windows of HTTP/2 besides.
  EXPECT_TRUE(wait_until([&] { return held_count() == 20; }));
  // Until the windows, which grow while they are filled, are full: nothing written for 300 looks.
  int before = -1, still = 0;
  wait_until([&] {
    still = std::exchange(before, sent.load()) == sent.load() && sent > 0 ? still + 1 : 0;
    return still == 300;
  });
  EXPECT_LT(sent, 1500) << "of 2,000: flow control stops the client; its windows grow to some 8 MB";
  EXPECT_EQ(held_count(), 20u);
  const std::int64_t resident = resident_bytes();  // of both ends
  Parker().park(std::getenv("SLUICE_LONG") != nullptr ? Duration(seconds(60)) : Duration(milliseconds(300)));
  EXPECT_LT(std::abs(resident_bytes() - resident), 5 << 20);
  EXPECT_EQ(held_count(), 20u);
  stop = true;
  std::size_t done = 0;
  std::thread release([&] {  // everything finishes after the release
    wait_until([&] {
      rpc::Invocation* one = nullptr;
      {
        const std::lock_guard lock(mutex);
        if (!held.empty()) {
          one = held.back();
          held.pop_back();
        }
      }
      if (one != nullptr) {
        lane.lane().post([one] { one->finish(rpc::Answer::of(Reply::ok("{}"))); });
        ++done;
      }
      return done == static_cast<std::size_t>(sent.load()) && stop;
    });
  });
  pusher.join();
  const auto status = up.finish();
  release.join();
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(up.reply.succeeded(), static_cast<std::uint64_t>(sent));
}

TEST_F(CommandStreamTest, STREAM_9_a_message_that_is_refused_ends_the_stream_with_its_sequence) {
  options.stream.backpressure.policy = admission::AtCapacity::hard_reject;
  options.stream.backpressure.capacity = 1;
  start();
  Upload up(channel);
  up.send("hold", "{}", "a");
  EXPECT_TRUE(wait_until([&] { return held_count() == 1; }));
  up.send("hold", "{}", "b");
  EXPECT_TRUE(wait_until([&] { return door->stats().streams.failed == 1; }));
  rpc::Invocation* one = held[0];
  lane.lane().post([one] { one->finish(rpc::Answer::of(Reply::ok("{}"))); });
  const auto status = up.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_NE(status.error_message().find("message 2"), std::string::npos) << status.error_message();
  EXPECT_FALSE(up.trailing("grpc-retry-pushback-ms").empty());
  v1::ExecuteStreamReply sum;
  ASSERT_TRUE(sum.ParseFromString(up.trailing("x-sluice-stream-summary-bin")));
  EXPECT_EQ(sum.succeeded(), 1u);
  EXPECT_EQ(sum.failed().at("backpressure"), 1u);
}

TEST_F(CommandStreamTest, STREAM_5_above_its_capacity_a_soft_policy_says_so_in_the_answer) {
  options.stream.backpressure.policy = admission::AtCapacity::soft_allow_with_signal;
  options.stream.backpressure.capacity = 1;
  start();
  Upload calm(channel);
  calm.send("echo", "{}");
  ASSERT_TRUE(calm.finish().ok());
  EXPECT_FALSE(calm.reply.pressure());
  EXPECT_EQ(calm.trailing("x-sluice-pressure"), "");
  Upload up(channel);
  up.send("hold", "{}", "a"), up.send("hold", "{}", "b");
  ASSERT_TRUE(wait_until([&] { return held_count() == 2; }));
  for (auto* one : held) lane.lane().post([one] { one->finish(rpc::Answer::of(Reply::ok("{}"))); });
  ASSERT_TRUE(up.finish().ok());
  EXPECT_TRUE(up.reply.pressure());
  EXPECT_EQ(up.trailing("x-sluice-pressure"), "true");
}

TEST_F(CommandStreamTest, STREAM_6_a_client_that_leaves_or_is_late_cancels_what_runs) {
  start();
  {
    Upload up(channel);
    up.send("hold", "{}");
    EXPECT_TRUE(wait_until([&] { return held_count() == 1; }));
    up.context.TryCancel();
    EXPECT_EQ(up.finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  Upload late(channel, {}, milliseconds(100));
  late.send("hold", "{}");
  EXPECT_EQ(late.finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(wait_until([&] { return door->drained(); }));
}

TEST_F(CommandStreamTest, CONSOLE_4_bad_tokens_bad_messages_and_bad_stream_ids_are_told) {
  start();
  const auto ends = [&](std::map<std::string, std::string> metadata, auto send) {
    Upload up(channel, std::move(metadata));
    send(up);
    return up.finish();
  };
  const auto nothing = [](Upload&) {};
  EXPECT_EQ(ends({{"authorization", "Bearer wrong"}}, nothing).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(ends({{"x-sluice-stream", "s"}}, nothing).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(ends({{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", "x"}}, nothing).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(ends({{"x-sluice-stream-epoch", "1"}}, nothing).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const auto gap = ends({{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", "1"}},
                        [](Upload& up) { up.send("echo", "{}", "", 1), up.send("echo", "{}", "", 3); });
  EXPECT_EQ(gap.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_NE(gap.error_message().find("expected message 2, got 3"), std::string::npos) << gap.error_message();
  const auto without = ends({{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", "2"}},
                            [](Upload& up) { up.send("echo", "{}"); });
  EXPECT_NE(without.error_message().find("without a sequence"), std::string::npos) << without.error_message();
  const auto stale = ends({{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", "2"}}, nothing);
  EXPECT_EQ(stale.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_NE(stale.error_message().find("epoch"), std::string::npos);
  // Permissions are each command's.
  Upload bob(channel, {{"authorization", "Bearer bob-token"}});
  bob.send("echo", "{}");
  ASSERT_TRUE(bob.finish().ok());
  EXPECT_EQ(bob.reply.first_failures(0).kind(), "forbidden");
}

// The id is part of the key of each message that has none of its own.
TEST_F(CommandStreamTest, STREAM_14_15_an_id_that_cannot_be_part_of_a_key_is_refused_before_anything_runs) {
  start();
  for (const std::string id : {"import 2026-11", "import;2026", "\"import\"", "a,b", "a\\b"}) {
    Upload up(channel, {{"x-sluice-stream", id}, {"x-sluice-stream-epoch", "1"}});
    up.send("note", note("a", 1), "", 1);
    const auto status = up.finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << id;
    EXPECT_NE(status.error_message().find("without blanks"), std::string::npos) << status.error_message();
  }
  Upload up(channel, {{"x-sluice-stream", "import/2026-11:a"}, {"x-sluice-stream-epoch", "1"}});
  up.send("note", note("a", 1), "", 1);
  ASSERT_TRUE(up.finish().ok());
  EXPECT_EQ(up.reply.succeeded(), 1u);
  EXPECT_EQ(number("counts", "a"), 1);
}

TEST_F(CommandStreamTest, CONSOLE_4_a_token_revoked_in_the_middle_ends_the_stream_and_counts_nothing_as_done) {
  std::atomic<bool> revoked{false};
  hooks.authenticate = [&, all = hooks.authenticate](std::string_view token) {
    return revoked ? fail(FailureKind::unauthenticated, "revoked_token", "this token was revoked") : all(token);
  };
  start();
  Upload up(channel, {{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", "1"}});
  up.send("note", note("a", 1), "a", 1);
  EXPECT_TRUE(wait_until([&] { return number("counts", "a") == 1; }));
  revoked = true;
  const Instant then = clock.now() + milliseconds(1100);  // it is asked for once a second
  EXPECT_TRUE(wait_until([&] { return clock.now() >= then; }));
  for (std::uint64_t n = 2; n < 10; ++n) up.send("note", note("a", static_cast<std::int64_t>(n)), "a", n);
  EXPECT_EQ(up.end().error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(up.trailing("x-sluice-stream-done"), "1");
  revoked = false;
  Upload again(channel, {{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", "2"}});
  EXPECT_EQ(again.done(), 1u);
  for (std::uint64_t n = 2; n < 10; ++n) again.send("note", note("a", static_cast<std::int64_t>(n)), "a", n);
  ASSERT_TRUE(again.finish().ok());
  EXPECT_EQ(again.reply.succeeded(), 9u);
  EXPECT_EQ(number("counts", "a"), 9);
}

// What a client receives by default is 4 MB; a command may say more of one failure alone.
TEST_F(CommandStreamTest, STREAM_1_an_answer_fits_a_message_however_much_the_failures_say) {
  add("talk", rpc::KeyUse::none, [](rpc::Invocation& invocation) {
    std::string text(1, 'x');
    for (int i = 0; i < 30'000; ++i) text += "\xc3\xa9";  // two bytes each, so that a cut may fall between them
    invocation.finish(rpc::Answer::of(Failure(FailureKind::rejected, "talkative", text)));
  });
  start();
  Upload up(channel);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(up.send("talk", "{}"));
  const auto status = up.finish();
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(up.reply.first_failures_size(), 100);
  EXPECT_LT(up.reply.ByteSizeLong(), 1u << 20);
  EXPECT_GT(up.reply.first_failures(0).detail().size(), 4000u);
  EXPECT_EQ(up.reply.first_failures(0).detail().size() % 2, 1u) << "one byte, then whole characters";
}

TEST_F(CommandStreamTest, STREAM_1_long_failures_are_cut_between_characters_in_the_trailing_metadata) {
  add("mumble", rpc::KeyUse::none, [](rpc::Invocation& invocation) {
    std::string text = invocation.command.payload == "1" ? "x" : "";
    for (int i = 0; i < 300; ++i) text += "\xC3\xA9";
    invocation.finish(rpc::Answer::of(Failure(FailureKind::rejected, "no", text)));
  });
  start();
  Upload up(channel, {{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", "1"}});
  up.send("mumble", "0", "", 1), up.send("mumble", "1", "", 2);
  EXPECT_TRUE(wait_until([&] { return door->stats().streams.failed == 2; }));
  up.send("mumble", "0", "", 5);  // a gap: ended with the counts so far
  EXPECT_EQ(up.end().error_code(), grpc::StatusCode::ABORTED);
  v1::ExecuteStreamReply sum;
  ASSERT_TRUE(sum.ParseFromString(up.trailing("x-sluice-stream-summary-bin")));
  ASSERT_EQ(sum.first_failures_size(), 2);
  EXPECT_EQ(sum.first_failures(0).detail().size(), 200u);
  EXPECT_EQ(sum.first_failures(1).detail().size(), 199u);
}

TEST_F(CommandStreamTest, G7_shadow_streams_neither_wait_for_live_ones_nor_hold_them_up) {
  start();
  Upload live(channel), shadow(channel, {{"x-sluice-shadow", "true"}});
  live.send("hold", "{}", "a");
  EXPECT_TRUE(wait_until([&] { return held_count() == 1; }));
  shadow.send("hold", "{}", "a");
  EXPECT_TRUE(wait_until([&] { return held_count() == 2; })) << "one key of two namespaces is two keys";
  door->cancel();
  EXPECT_FALSE(live.finish().ok());
  EXPECT_FALSE(shadow.finish().ok());
}

TEST_F(CommandStreamTest, VOUCHER_9_a_full_shadow_pipeline_leaves_the_live_one_its_room) {
  options.stream.backpressure.capacity = 1;
  options.stream.backpressure.policy = admission::AtCapacity::hard_reject;
  start();
  Upload shadow(channel, {{"x-sluice-shadow", "true"}});
  ASSERT_TRUE(shadow.send("hold", "{}"));
  ASSERT_TRUE(wait_until([&] { return held_count() == 1; }));
  Upload more(channel, {{"x-sluice-shadow", "1"}});
  ASSERT_TRUE(more.send("echo", "{}"));
  EXPECT_EQ(from_grpc_status(more.end()).kind(), FailureKind::overloaded);
  Upload live(channel);
  ASSERT_TRUE(live.send("echo", "{}"));
  EXPECT_TRUE(live.finish().ok());
  EXPECT_EQ(door->stats().streams.gate.refused, 0u);
  {
    const std::lock_guard lock(mutex);
    lane.lane().post([one = held[0]] { one->finish(rpc::Answer::of(Reply::ok("{}"))); });
  }
  EXPECT_TRUE(shadow.finish().ok());
}

TEST_F(CommandStreamTest, G7_shadow_is_shadow_however_it_is_written_and_leaves_the_live_mark_alone) {
  start();
  for (const char* written : {"1", "true"}) {
    Upload shadow(channel, {{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", "1"}, {"x-sluice-shadow", written}});
    if (shadow.done() == 0u) shadow.send("echo", "{}", "", 1);
    (void)shadow.finish();
  }
  Upload live(channel, {{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", "1"}});
  EXPECT_EQ(live.done(), 0u);
  EXPECT_TRUE(live.finish().ok());
}

TEST_F(CommandStreamTest, STREAM_11_one_key_is_one_turn_whether_the_app_is_named_or_the_commands_own) {
  start();
  Upload named(channel, {{"x-sluice-app", "shop"}}), unnamed(channel);
  named.send("hold", "{}", "a");
  EXPECT_TRUE(wait_until([&] { return held_count() == 1; }));
  unnamed.send("hold", "{}", "a");
  EXPECT_TRUE(wait_until([&] { return door->stats().streams.gate.waiting_for_turn == 1; }));
  EXPECT_EQ(held_count(), 1u);
  door->cancel();
  EXPECT_FALSE(named.finish().ok());
  EXPECT_FALSE(unnamed.finish().ok());
}

TEST_F(CommandStreamTest, STREAM_1_what_is_not_settled_is_told_apart_with_its_transaction) {
  start();
  Upload up(channel);
  up.send("unsettled", "true"), up.send("unsettled", "{}"), up.send("echo", "{}");
  ASSERT_TRUE(up.finish().ok());
  EXPECT_EQ(up.reply.succeeded(), 1u);
  EXPECT_EQ(up.reply.unsettled(), 2u);
  EXPECT_TRUE(up.reply.failed().empty()) << up.reply.ShortDebugString();
  ASSERT_EQ(up.reply.first_failures_size(), 2);
  EXPECT_EQ(up.reply.first_failures(0).kind(), "in_doubt");
  EXPECT_EQ(up.reply.first_failures(0).transaction(), to_string(ExchangeId{7}));
  EXPECT_EQ(up.reply.first_failures(1).kind(), "pending");
}

TEST_F(CommandStreamTest, STREAM_12_draining_finishes_open_streams_and_refuses_new_ones) {
  start();
  Upload up(channel);
  up.send("hold", "{}");
  EXPECT_TRUE(wait_until([&] { return held_count() == 1; }));
  door->drain();
  Upload late(channel);
  EXPECT_EQ(late.finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_FALSE(door->drained());
  rpc::Invocation* one = held[0];
  lane.lane().post([one] { one->finish(rpc::Answer::of(Reply::ok("{}"))); });
  up.send("echo", "{}");
  ASSERT_TRUE(up.finish().ok());
  EXPECT_EQ(up.reply.succeeded(), 2u);
  EXPECT_TRUE(wait_until([&] { return door->drained(); }));
}

TEST_F(CommandStreamTest, STREAM_12_after_the_grace_streams_are_cancelled_and_at_the_stop_answered_whatever_runs) {
  std::atomic<rpc::Invocation*> last = nullptr;  // the one that outlives its call
  add("deaf", rpc::KeyUse::none, [&](rpc::Invocation& invocation) { last = &invocation; });
  start();
  Upload up(channel), deaf(channel);
  up.send("hold", "{}"), deaf.send("deaf", "{}");
  EXPECT_TRUE(wait_until([&] { return held_count() == 1 && last != nullptr; }));
  door->cancel();
  EXPECT_EQ(up.finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_FALSE(door->drained()) << "one does not listen";
  door->stop();
  EXPECT_EQ(deaf.finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  lane.lane().post([one = last.load()] { one->finish(rpc::Answer::of(Reply::ok("{}"))); });
  EXPECT_TRUE(wait_until([&] { return door->drained(); }));
}

}  // namespace
}  // namespace sluice::transport
