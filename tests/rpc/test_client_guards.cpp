// Shadow, cache and guards in the outbound chain, in virtual time.
#include "rpc/client_fixture.hpp"

namespace sluice::rpc {
namespace {

TEST_F(ClientTest, RES_6_shadow_traffic_is_marked_routed_or_held_to_reads) {
  auto other = std::make_shared<ScriptChannel>();
  chain({shadow_calls({.channel = other})});
  const RemoteCommand& put = client->add(writes("put"));
  (void)call(put);
  (void)call(put, shadow());
  ASSERT_EQ(channel->seen.size(), 1u);
  EXPECT_TRUE(channel->seen[0].headers.empty());
  ASSERT_EQ(other->seen.size(), 1u);
  EXPECT_EQ(other->seen[0].headers[0].first, "x-sluice-shadow");
  chain({shadow_calls({.channel = nullptr, .reads_only = true})});
  EXPECT_EQ(call(client->add(writes("put")), shadow()).error().code(), "shadow_reads_only");
  EXPECT_TRUE(call(client->add(reads("get")), shadow()));
}

TEST_F(ClientTest, RES_2_the_protector_is_the_commands_live_and_shadow_apart) {
  rules("[guard.put.breaker]\nwindow = \"count\"\nminimum_calls = 2\n");
  chain({guard_calls(guards, random)});
  const RemoteCommand& put = client->add(writes("put"));
  channel->script.assign(2, ScriptChannel::failure(FailureKind::unavailable, "down"));
  (void)call(put);
  (void)call(put);
  const auto refused = call(put);
  EXPECT_EQ(refused.error().code(), "blocked_by_breaker");
  EXPECT_EQ(channel->seen.size(), 2u);
  EXPECT_TRUE(call(put, shadow())) << "shadow has a breaker of its own";
  EXPECT_TRUE(call(client->add(writes("else")))) << "no rule: straight through";
}

TEST_F(ClientTest, RES_6_two_apps_with_a_command_of_one_name_have_a_breaker_each) {
  rules("[guard.put.breaker]\nwindow = \"count\"\nminimum_calls = 2\n");
  chain({guard_calls(guards, random)});
  const RemoteCommand& put = client->add(writes("put"));
  CallContext shop, bank;
  shop.ns = Namespace("shop");
  bank.ns = Namespace("bank");
  channel->script.assign(2, ScriptChannel::failure(FailureKind::unavailable, "down"));
  (void)call(put, shop);
  (void)call(put, shop);
  EXPECT_EQ(call(put, shop).error().code(), "blocked_by_breaker");
  EXPECT_TRUE(call(put, bank));
}

TEST_F(ClientTest, RES_20_a_call_says_how_much_it_weighs_and_whose_quota_it_takes) {
  rules("[guard.put.rate]\nlimit = 5\nperiod = \"1h\"\n[guard.put.hot_keys]\nlimit = 4\nperiod = \"1h\"\n");
  chain({guard_calls(guards, random)});
  const RemoteCommand& put = client->add(writes("put"));
  CallContext three;
  three.weight = 3;
  three.hot_key = "ann";
  EXPECT_TRUE(call(put, three));
  EXPECT_EQ(call(put, three).error().code(), "blocked_by_rate") << "two of five are left";
  three.weight = 2;
  EXPECT_EQ(call(put, three).error().code(), "blocked_by_hot_keys") << "one of ann's four is left";
  three.hot_key = "bob";
  EXPECT_TRUE(call(put, three));
  EXPECT_EQ(call(put).error().code(), "blocked_by_rate") << "all are used";
  EXPECT_EQ(channel->seen.size(), 2u);
}

// Notes which partition's places are taken while a call runs.
struct LooksAtPlaces final : Interceptor {
  explicit LooksAtPlaces(Guards& g) : guards(g) {}
  std::string_view name() const noexcept override { return "looks"; }
  Task<Result<Response>> intercept(const RemoteCommand& command, const CallContext& context, const Request& request,
                                   Next next) override {
    const TaskContext& task = co_await current_context();
    seen = guards.find(command.name).snapshot(task.lane->clock().now()).bulkhead->partitions;
    Task<Result<Response>> rest = next(context, request);
    Result<Response> response = co_await rest;
    co_return response;
  }
  Guards& guards;
  std::array<std::uint32_t, resilience::kPartitions> seen{};
};

TEST_F(ClientTest, RES_23_a_call_says_of_which_partition_it_takes_a_place) {
  rules("[guard.put.bulkhead]\nlimit = 4\nshares = [0.5, 0.5]\nlend = 0\n");
  auto looks = std::make_shared<LooksAtPlaces>(guards);
  chain({guard_calls(guards, random), looks});
  const RemoteCommand& put = client->add(writes("put"));
  for (std::uint8_t partition = 0; partition < 2; ++partition) {
    CallContext context;
    context.partition = partition;
    EXPECT_TRUE(call(put, context));
    EXPECT_EQ(looks->seen[partition], 1u);
    EXPECT_EQ(looks->seen[1u - partition], 0u);
  }
}

TEST_F(ClientTest, RES_30_only_what_may_be_repeated_is_retried) {
  rules("[guard.\"*\".retry]\nattempts = 3\n");
  chain({guard_calls(guards, random)});
  const RemoteCommand& put = client->add(writes("put"));
  const auto fail_once = [&](FailureKind kind) {
    channel->seen.clear();
    channel->script = {ScriptChannel::failure(kind, "once")};
  };
  fail_once(FailureKind::unavailable);
  EXPECT_FALSE(call(put));
  EXPECT_EQ(channel->seen.size(), 1u) << "without a key never";
  fail_once(FailureKind::unknown_outcome);
  EXPECT_TRUE(call(put, keyed()));
  ASSERT_EQ(channel->seen.size(), 2u);
  EXPECT_EQ(channel->seen[1].attempt, 2u);
  EXPECT_EQ(channel->seen[1].idempotency_key, "k-1") << "the same key for every attempt";
  fail_once(FailureKind::unavailable);
  EXPECT_TRUE(call(client->add(reads("get"))));
  fail_once(FailureKind::rejected);
  EXPECT_EQ(call(put, keyed()).error().kind(), FailureKind::rejected);
  EXPECT_EQ(channel->seen.size(), 1u) << "a decision is not retried";
}

TEST_F(ClientTest, RES_30_what_may_have_happened_is_not_told_as_nothing_happened) {
  rules("[guard.put.retry]\nattempts = 2\n");
  chain({guard_calls(guards, random)});
  const RemoteCommand& put = client->add(writes("put"));
  channel->script = {ScriptChannel::failure(FailureKind::unknown_outcome, "connection_lost"),
                     ScriptChannel::failure(FailureKind::unavailable, "cannot_connect")};
  EXPECT_EQ(call(put, keyed()).error().kind(), FailureKind::unknown_outcome);
  channel->script = {ScriptChannel::failure(FailureKind::unknown_outcome, "connection_lost"),
                     ScriptChannel::failure(FailureKind::rejected, "sold_out")};
  EXPECT_EQ(call(put, keyed()).error().kind(), FailureKind::rejected)
      << "the callee's answer under the key covers both";
}

TEST_F(ClientTest, RES_32_the_callee_is_told_a_deadline_earlier_by_the_margin) {
  rules("[guard.get.timeout]\ntimeout = \"1s\"\nmargin = \"20ms\"\n");
  chain({guard_calls(guards, random)});
  const Instant now = clock.now();
  channel->script = {std::nullopt};
  const auto late = call(client->add(reads("get")));
  EXPECT_EQ(late.error().kind(), FailureKind::timeout);
  EXPECT_EQ(channel->deadlines[0], now + milliseconds(980));
  EXPECT_LE(clock.now() - now, milliseconds(1010));
}

TEST_F(ClientTest, RES_33_one_fetch_for_many_and_an_answer_for_each_namespace) {
  chain({cache_calls(random)});
  const RemoteCommand& get = client->add(reads("get"));
  channel->script = {ScriptChannel::ok("[1]"), ScriptChannel::ok("[2]"), ScriptChannel::ok("[3]")};
  EXPECT_EQ(*call(get, {}, "1").value().body, "[1]");
  EXPECT_EQ(*call(get, {}, "1").value().body, "[1]");
  EXPECT_EQ(*call(get, {}, "2").value().body, "[2]") << "another body";
  EXPECT_EQ(*call(get, shadow(), "1").value().body, "[3]") << "another namespace";
  EXPECT_TRUE(channel->seen.back().shadow()) << "the fetch is shadow traffic too";
  EXPECT_EQ(channel->seen.size(), 3u);
  const RemoteCommand& put = client->add(writes("put"));
  (void)call(put);
  (void)call(put);
  EXPECT_EQ(channel->seen.size(), 5u) << "what changes something is never cached";
}

TEST_F(ClientTest, RES_32_who_waits_for_a_shared_fetch_is_answered_by_its_own_deadline) {
  chain({cache_calls(random)});
  const RemoteCommand& get = client->add(reads("get"));
  channel->script = {ScriptChannel::ok("[1]")};
  channel->delay = seconds(1);
  const Instant began = clock.now();
  const auto late = call(get, {}, "1", milliseconds(100));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().kind(), FailureKind::timeout);
  EXPECT_LE(clock.now() - began, milliseconds(110));
  EXPECT_EQ(*call(get, {}, "1").value().body, "[1]") << "the fetch went on for the others";
  EXPECT_EQ(channel->seen.size(), 1u);
}

TEST_F(ClientTest, RES_20_behind_the_cache_a_call_keeps_its_hot_key_priority_and_trace) {
  rules("[guard.get.hot_keys]\nlimit = 1\nperiod = \"1h\"\n");
  chain({cache_calls(random), guard_calls(guards, random)});
  const RemoteCommand& get = client->add(reads("get"));
  CallContext context;
  context.hot_key = "v";
  context.priority = resilience::Priority::background;
  context.trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  context.correlation = "c-1";
  ASSERT_TRUE(call(get, context, "1"));
  EXPECT_EQ(channel->seen[0].trace, context.trace);
  EXPECT_EQ(channel->seen[0].correlation, "c-1");
  EXPECT_EQ(channel->seen[0].priority, resilience::Priority::background);
  const auto refused = call(get, context, "2");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), "blocked_by_hot_keys");
  EXPECT_TRUE(call(get, context, "1")) << "what is remembered asks nobody";
}

// Cache, then breaker: the order that the chain is meant to have.
TEST_F(ClientTest, RES_5_what_is_cached_is_answered_under_an_open_breaker) {
  rules("[guard.get.breaker]\n");
  chain({cache_calls(random), guard_calls(guards, random)});
  const RemoteCommand& get = client->add(reads("get"));
  channel->script = {ScriptChannel::ok("[1]")};
  ASSERT_TRUE(call(get, {}, "1"));
  ASSERT_TRUE(guards.force("get", false, resilience::BreakerState::forced_open, "ann", "drill"));
  const auto cached = call(get, {}, "1");
  ASSERT_TRUE(cached) << cached.error().to_string();
  EXPECT_EQ(*cached->body, "[1]");
  const auto fresh = call(get, {}, "2");
  ASSERT_FALSE(fresh);
  EXPECT_EQ(fresh.error().code(), "blocked_by_breaker");
}

TEST_F(ClientTest, RES_5_shadow_is_outside_of_cache_and_guards) {
  rules("[guard.get.breaker]\n[shadow.get.rate]\nlimit = 0\n");
  chain({shadow_calls(), cache_calls(random), guard_calls(guards, random)});
  const RemoteCommand& get = client->add(reads("get"));
  ASSERT_TRUE(call(get, {}, "1"));
  const auto refused = call(get, shadow(), "1");
  ASSERT_FALSE(refused) << "live traffic's answer was given to shadow traffic";
  EXPECT_EQ(refused.error().code(), "blocked_by_rate") << "by the shadow rule";
  EXPECT_EQ(guards.show("get")->passed, 1u);
  EXPECT_EQ(guards.show("get", true)->passed, 0u);
}

TEST_F(ClientTest, RES_33_absence_is_remembered_and_failures_are_not) {
  CallCacheOptions options;
  options.entries.absent_ttl = seconds(5);
  options.entries.jitter = 0;
  chain({cache_calls(random, options)});
  const RemoteCommand& get = client->add(reads("get"));
  channel->script = {ScriptChannel::failure(FailureKind::not_found)};
  EXPECT_EQ(call(get).error().kind(), FailureKind::not_found);
  EXPECT_EQ(call(get).error().kind(), FailureKind::not_found);
  EXPECT_EQ(channel->seen.size(), 1u);
  clock.advance(seconds(6));
  channel->script = {ScriptChannel::failure(FailureKind::unavailable)};
  EXPECT_EQ(call(get).error().kind(), FailureKind::unavailable);
  EXPECT_TRUE(call(get));
  EXPECT_EQ(channel->seen.size(), 3u);
}

}  // namespace
}  // namespace sluice::rpc
