// Commands/ExecuteStream over real connections: counts, order, flow control, cuts, drain.
#include <gmock/gmock.h>
#include <grpcpp/support/sync_stream.h>
#include <unistd.h>

#include <fstream>

#include "grpc/grpc_fixture.hpp"
#include "sluice/stream/ledger.hpp"
#include "support/chaos_proxy.hpp"
#include "support/forwarding_store.hpp"

namespace sluice::transport {
namespace {

/// A client's stream.
class Upload {
 public:
  Upload(const std::shared_ptr<grpc::Channel>& channel, std::map<std::string, std::string> metadata = {},
         Duration within = seconds(60))
      : channel_(channel) {
    metadata.try_emplace("authorization", "Bearer ann-token");
    for (const auto& [key, value] : metadata) context.AddMetadata(key, value);
    context.set_deadline(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                      gpr_time_from_nanos(std::chrono::nanoseconds(within).count(), GPR_TIMESPAN)));
    writer_.reset(grpc::internal::ClientWriterFactory<v1::ExecuteStreamRequest>::Create(
        channel.get(),
        grpc::internal::RpcMethod("/sluice.v1.Commands/ExecuteStream", grpc::internal::RpcMethod::CLIENT_STREAMING,
                                  channel),
        &context, &reply));
  }
  bool send(const std::string& name, const std::string& payload, const std::string& order = {}, std::uint64_t sequence = 0,
            const std::string& key = {}) {
    v1::ExecuteStreamRequest request;
    request.set_name(name);
    request.set_payload(payload);
    request.set_ordering_key(order);
    request.set_sequence(sequence);
    request.set_idempotency_key(key);
    return writer_->Write(request);
  }
  grpc::Status finish() {
    writer_->WritesDone();
    return writer_->Finish();
  }
  /// What the server ends it with while this side stays open.
  grpc::Status end() { return writer_->Finish(); }
  /// The mark of a stream that can be resumed; nothing when the stream ended first.
  std::optional<std::uint64_t> done() {
    writer_->WaitForInitialMetadata();
    const auto& got = context.GetServerInitialMetadata();
    const auto at = got.find("x-sluice-stream-done");
    if (at == got.end()) return std::nullopt;
    return std::stoull(std::string(at->second.data(), at->second.size()));
  }
  std::string trailing(const std::string& key) {
    const auto& got = context.GetServerTrailingMetadata();
    const auto at = got.find(key);
    return at == got.end() ? std::string() : std::string(at->second.data(), at->second.size());
  }

  grpc::ClientContext context;
  v1::ExecuteStreamReply reply;

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<grpc::ClientWriter<v1::ExecuteStreamRequest>> writer_;
};

class CommandStreamTest : public GrpcTest {
 protected:
  CommandStreamTest() {
    hooks.marks = store.get();
    hooks.random = &random;
    // Takes effect once and in order, or says that it did not: {"k":"a","n":7} after all below 7.
    add("note", rpc::KeyUse::optional, [this](rpc::Invocation& invocation) {
      const std::string& text = invocation.command.payload;
      const auto key = text.substr(6, text.find('"', 6) - 6);
      const auto number = std::stoll(text.substr(text.find("\"n\":") + 4));
      const store::KvKey row{"shop", "notes", key};
      store::Commit commit;
      commit.requires_.push_back({store::KvAtMost{row, number - 1}, "out_of_order"});
      commit.then.push_back(store::KvPut{row, "", number});
      commit.then.push_back(store::KvAdd{{"shop", "counts", key}, 1});
      ++runs;
      invocation.finish_with(std::move(commit), Reply::ok("{}"));
    });
  }
  static std::string note(const std::string& key, std::int64_t number) {
    return "{\"k\":\"" + key + "\",\"n\":" + std::to_string(number) + "}";
  }
  std::int64_t number(const std::string& collection, const std::string& key) {
    auto rows = store::ask_and_wait(*store, store::GetRows{{{"shop", collection, key}}});
    const auto& row = std::get<store::GetRows::Answer>(*rows).at(0);
    return row ? row->number : 0;
  }
};

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
  int before = -1;
  wait_until([&] { return std::exchange(before, sent.load()) == sent.load() && sent > 0; });
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
      proxy.set({.reset_after = 500 + dice.below(4000 + static_cast<std::uint64_t>(attempt) * 2000)});
      grpc::ChannelArguments arguments;
      arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      const auto through = grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(proxy.port()),
                                                     grpc::InsecureChannelCredentials(), arguments);
      Upload up(through, {{"x-sluice-stream", id}, {"x-sluice-stream-epoch", std::to_string(++epoch)}}, seconds(20));
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
      ASSERT_TRUE(status.error_code() == grpc::StatusCode::UNAVAILABLE || status.error_code() == grpc::StatusCode::CANCELLED)
          << status.error_code() << " " << status.error_message();
      ++was_cut;
    }
  }
  for (const auto& [key, count] : sent) {
    ASSERT_EQ(number("counts", key), count) << key;
    ASSERT_EQ(number("notes", key), count) << key;
  }
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
