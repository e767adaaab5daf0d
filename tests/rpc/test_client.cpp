// The outbound chain over a channel that does what the test says, in virtual time: order, what each
// stock interceptor does, and what may be called from where.
#include <gtest/gtest.h>

#include <deque>

#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/flow/combine.hpp"
#include "sluice/flow/flow.hpp"
#include "sluice/resilience/rule.hpp"
#include "sluice/rpc/flow_handler.hpp"
#include "sluice/rpc/interceptors.hpp"

namespace sluice::rpc {
namespace {

using resilience::Guards;

/// Answers from a script, then "{}"; a scripted `nullopt` never answers.
class ScriptChannel final : public Channel {
 public:
  using Answer = std::optional<Result<Response>>;
  Task<Result<Response>> invoke(const RemoteCommand&, const CallContext& context,
                                const Request& request) override {
    const TaskContext& task = co_await current_context();
    seen.push_back(context);
    bodies.push_back(*request.body);
    deadlines.push_back(task.deadline);
    Answer answer = ok("{}");
    if (!script.empty()) {
      answer = std::move(script.front());
      script.pop_front();
    }
    if (!answer) {
      const FailureKind cut = co_await sleep_for(std::chrono::hours(1000));
      Failure why(cut, "cut", "never answered");
      co_return fail(std::move(why));
    }
    if (delay > Duration::zero()) (void)co_await sleep_for(delay);
    Result<Response> given = *std::move(answer);
    co_return given;
  }
  static Answer ok(std::string body) {
    Response response;
    response.body = std::make_shared<const Bytes>(std::move(body));
    return Result<Response>(std::move(response));
  }
  static Answer failure(FailureKind kind, std::string_view code = {}) {
    return Result<Response>(fail(Failure(kind, code, "scripted")));
  }
  std::deque<Answer> script;
  Duration delay{};
  std::vector<CallContext> seen;
  std::vector<std::string> bodies;
  std::vector<Instant> deadlines;
};

class ClientTest : public ::testing::Test {
 protected:
  void chain(std::vector<std::shared_ptr<Interceptor>> stations) {
    client = std::make_unique<Client>(channel, std::move(stations));
  }
  void rules(const std::string& toml) {
    auto parsed = resilience::parse_rules(toml, "test");
    ASSERT_TRUE(parsed) << parsed.error().to_string();
    ASSERT_TRUE(guards.reload(*std::move(parsed)));
  }
  Result<Response> call(const RemoteCommand& command, CallContext context = {},
                        std::string body = "{}", Duration within = seconds(10)) {
    CancelScope scope;
    TaskContext task{&lane, &scope, clock.now() + within, outside};
    auto running = client->call(command, std::move(context), std::move(body));
    bool done = running.start(task, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &done_);
    done_ = done_ || done;
    for (int i = 0; i < 200'000 && !done_; ++i) {
      lane.run_ready();
      if (!done_) clock.advance(milliseconds(1));
    }
    EXPECT_TRUE(std::exchange(done_, false));
    return running.take();
  }
  static RemoteCommand reads(std::string name) { return {.name = std::move(name), .read_only = true}; }
  static RemoteCommand writes(std::string name) { return {.name = std::move(name)}; }
  static CallContext shadow() {
    CallContext context;
    context.ns = Namespace("shop", true);
    return context;
  }
  static CallContext keyed() {
    CallContext context;
    context.idempotency_key = "k-1";
    return context;
  }

  sim::SimClock clock;
  sim::SimRandom random{1};
  Lane lane{clock};
  std::shared_ptr<ScriptChannel> channel = std::make_shared<ScriptChannel>();
  Guards guards{clock, random};
  std::unique_ptr<Client> client;
  bool outside = true;
  bool done_ = false;
};

class Note final : public Interceptor {
 public:
  Note(std::string name, std::vector<std::string>& log) : name_(std::move(name)), log_(log) {}
  std::string_view name() const noexcept override { return name_; }
  Task<Result<Response>> intercept(const RemoteCommand& command, const CallContext& context,
                                   const Request& request, Next next) override {
    log_.push_back(name_ + ">" + command.name + *request.body);
    CallContext mine = context;
    mine.headers.emplace_back("x-" + name_, "1");
    Task<Result<Response>> rest = next(mine, request);
    Result<Response> response = co_await rest;
    log_.push_back("<" + name_ + (response ? *response->body : "failed"));
    co_return response;
  }

 private:
  std::string name_;
  std::vector<std::string>& log_;
};

TEST_F(ClientTest, RES_1_a_call_goes_through_the_chain_in_order_and_back) {
  std::vector<std::string> log;
  chain({std::make_shared<Note>("a", log), std::make_shared<Note>("b", log)});
  channel->script.push_back(ScriptChannel::ok("[7]"));
  const auto response = call(client->add(reads("get")), {}, "[1]");
  ASSERT_TRUE(response);
  EXPECT_EQ(*response->body, "[7]");
  EXPECT_EQ(log, (std::vector<std::string>{"a>get[1]", "b>get[1]", "<b[7]", "<a[7]"}));
  ASSERT_EQ(channel->seen[0].headers.size(), 2u);
  EXPECT_EQ(channel->seen[0].headers[1].first, "x-b");
}

TEST_F(ClientTest, RES_1_an_answer_that_is_no_json_and_a_throw_are_failures) {
  chain({});
  channel->script = {ScriptChannel::ok("garbage"), ScriptChannel::ok("garbage")};
  EXPECT_EQ(call(client->add(reads("get"))).error().kind(), FailureKind::unavailable);
  const auto written = call(client->add(writes("put")));
  EXPECT_EQ(written.error().kind(), FailureKind::unknown_outcome) << "it was answered, so it ran";
  EXPECT_EQ(written.error().code(), "bad_response");
  class Throws final : public Interceptor {
    std::string_view name() const noexcept override { return "throws"; }
    Task<Result<Response>> intercept(const RemoteCommand&, const CallContext&, const Request&,
                                     Next) override {
      throw std::runtime_error("no luck");
    }
  };
  chain({std::make_shared<Throws>()});
  EXPECT_EQ(call(client->add(reads("get"))).error().code(), "call_threw");
}

TEST_F(ClientTest, FLOW_13_only_external_stages_may_call_what_is_not_read_only) {
  chain({});
  outside = false;
  EXPECT_EQ(call(client->add(writes("put"))).error().code(), "call_from_pure_stage");
  EXPECT_TRUE(channel->seen.empty());
  EXPECT_TRUE(call(client->add(reads("get"))));
  outside = true;
  EXPECT_TRUE(call(client->add(writes("put"))));
}

TEST_F(ClientTest, FLOW_13_a_flow_tells_its_stages_what_they_may_call) {
  chain({});
  const RemoteCommand& put = client->add(writes("put"));
  std::map<std::string, std::string> told;
  const auto stage = [&](std::string name, flow::Effect effect) {
    return flow::task_func(
        name,
        [&, name](flow::Exchange&) -> Task<Result<flow::Vote>> {
          return [](Client& to, const RemoteCommand& command,
                    std::string& word) -> Task<Result<flow::Vote>> {
            CallContext context;
            Task<Result<Response>> calling = to.call(command, context, "{}");
            Result<Response> response = co_await calling;
            word = response ? "called" : response.error().code();
            co_return flow::Vote();
          }(*client, put, told[name]);
        },
        effect);
  };
  flow::FlowOptions options;
  IdSource ids(clock, 1);
  options.ids = &ids;
  flow::Flow flow("probe", options);
  flow.group("main", {stage("pure", flow::Effect::store),
                      flow::parallel("both", {stage("inner_pure", flow::Effect::none),
                                              stage("inner_outside", flow::Effect::external)}),
                      stage("outside", flow::Effect::external)});
  auto exchange = std::make_shared<flow::Exchange>(ids.exchange(), Namespace(), "{}");
  bool done = false;
  flow::RunOptions run;
  run.lane = &lane;
  flow.run(exchange, std::move(run),
           [](void* flag, flow::Outcome) noexcept { *static_cast<bool*>(flag) = true; }, &done);
  for (int i = 0; i < 1000 && !done; ++i) lane.run_ready();
  EXPECT_TRUE(done);
  EXPECT_EQ(told["pure"], "call_from_pure_stage");
  EXPECT_EQ(told["inner_pure"], "call_from_pure_stage");
  EXPECT_EQ(told["inner_outside"], "called");
  EXPECT_EQ(told["outside"], "called");
}

TEST_F(ClientTest, FLOW_13_in_the_second_phase_too_each_child_of_parallel_has_its_own_leave) {
  struct Asking final : flow::Stage {
    Asking(std::string name, flow::Effect effect, std::map<std::string, bool>& told)
        : name_(std::move(name)), effect_(effect), told_(told) {}
    std::string_view name() const noexcept override { return name_; }
    flow::Effect effect() const noexcept override { return effect_; }
    bool asynchronous() const noexcept override { return true; }
    bool has_commit() const noexcept override { return true; }
    bool has_abort() const noexcept override { return true; }
    Task<Result<flow::Vote>> prepare_task(flow::Exchange&) override { co_return flow::Vote::continue_(); }
    Task<Status> commit_task(flow::Exchange&) override {
      TaskContext& context = co_await current_context();
      told_[name_] = context.outside;
      co_return Status{};
    }
    Task<Status> abort_task(flow::Exchange&, bool) override { co_return Status{}; }
    std::string name_;
    flow::Effect effect_;
    std::map<std::string, bool>& told_;
  };
  std::map<std::string, bool> told;
  const auto stage = [&](std::string name, flow::Effect effect) {
    return std::make_shared<Asking>(std::move(name), effect, told);
  };
  IdSource ids(clock, 1);
  flow::FlowOptions options;
  options.ids = &ids;
  flow::Flow flow("probe", options);
  flow.group("main", {flow::parallel("both", {stage("first", flow::Effect::none), stage("second", flow::Effect::external),
                                              stage("third", flow::Effect::none)})});
  bool done = false;
  flow::RunOptions run;
  run.lane = &lane;
  flow.run(std::make_shared<flow::Exchange>(ids.exchange(), Namespace(), "{}"), std::move(run),
           [](void* flag, flow::Outcome) noexcept { *static_cast<bool*>(flag) = true; }, &done);
  for (int i = 0; i < 1000 && !done; ++i) lane.run_ready();
  EXPECT_TRUE(done);
  EXPECT_EQ(told, (std::map<std::string, bool>{{"first", false}, {"second", true}, {"third", false}}));
}

TEST_F(ClientTest, FLOW_13_a_stage_calls_under_its_own_token) {
  flow::Exchange exchange({77}, Namespace("shop", true), "{}");
  exchange.correlation = "c";
  exchange.trace = "t";
  const CallContext context = outbound_context(exchange, "second");
  EXPECT_TRUE(context.shadow());
  EXPECT_EQ(context.correlation, "c");
  EXPECT_EQ(context.trace, "t");
  EXPECT_EQ(context.idempotency_key, exchange.token() + ".second");
  EXPECT_EQ(outbound_context(exchange).idempotency_key, exchange.token());
}

class Lines final : public LogSink {
 public:
  void write(LogLevel, std::string_view line) override { all.emplace_back(line); }
  std::vector<std::string> all;
};

TEST_F(ClientTest, RES_1_the_log_is_sampled_masked_and_capped_and_tells_every_failure) {
  auto lines = std::make_shared<Lines>();
  const auto logger = make_logger(clock, lines);
  CallLogOptions options;
  options.sample_every = 3;
  options.max_body_bytes = 60;
  chain({log_calls(*logger, options)});
  const RemoteCommand& get = client->add(reads("get"));
  for (int i = 0; i < 6; ++i)
    EXPECT_TRUE(call(get, {}, "{\"password\":\"hunter2\",\"pad\":\"" + std::string(100, 'x') + "\"}"));
  ASSERT_EQ(lines->all.size(), 2u);
  EXPECT_EQ(lines->all[0].find("hunter2"), std::string::npos) << lines->all[0];
  EXPECT_NE(lines->all[0].find("***"), std::string::npos);
  EXPECT_NE(lines->all[0].find("bytes)"), std::string::npos) << "cut: " << lines->all[0];
  channel->script.assign(2, ScriptChannel::failure(FailureKind::unavailable, "down"));
  (void)call(get);
  (void)call(get);
  EXPECT_EQ(lines->all.size(), 4u);
  EXPECT_NE(lines->all[3].find("down"), std::string::npos);
}

TEST_F(ClientTest, RES_1_fields_that_are_worth_money_are_hidden_whole) {
  auto lines = std::make_shared<Lines>();
  const auto logger = make_logger(clock, lines);
  CallLogOptions options;
  options.secret_fields = {"codes", "universal"};
  chain({log_calls(*logger, options)});
  channel->script = {ScriptChannel::ok(R"({"segments":[{"voucher":"v-1","codes":["AAAA-1111","BBBB-2222"]},)"
                                       R"({"voucher":"v-2","universal":"FREE-9"}]})")};
  EXPECT_TRUE(call(client->add(reads("get"))));
  ASSERT_EQ(lines->all.size(), 1u);
  EXPECT_EQ(lines->all[0].find("AAAA-1111"), std::string::npos) << lines->all[0];
  EXPECT_EQ(lines->all[0].find("FREE-9"), std::string::npos) << lines->all[0];
  EXPECT_NE(lines->all[0].find("v-2"), std::string::npos) << "the rest is shown: " << lines->all[0];
}

TEST_F(ClientTest, RES_1_each_call_is_a_span_below_its_callers_trace) {
  chain({trace_calls(random)});
  const std::string trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  CallContext context;
  context.trace = trace;
  (void)call(client->add(reads("get")), context);
  (void)call(client->add(reads("get")));
  const std::string sent = channel->seen[0].trace;
  ASSERT_EQ(sent.size(), trace.size());
  EXPECT_EQ(sent.substr(0, 36), trace.substr(0, 36));
  EXPECT_NE(sent.substr(36, 16), trace.substr(36, 16));
  EXPECT_EQ(sent.substr(52), "-01");
  EXPECT_EQ(channel->seen[1].trace.size(), trace.size()) << "a new trace without one";
}

TEST_F(ClientTest, RES_1_calls_are_counted_by_command_traffic_and_outcome) {
  Metrics metrics;
  chain({measure_calls(metrics)});
  const RemoteCommand& get = client->add(reads("get"));
  channel->script = {ScriptChannel::ok("{}"), ScriptChannel::failure(FailureKind::not_found)};
  (void)call(get);
  (void)call(get);
  (void)call(get, shadow());
  const auto count = [&](const std::string& traffic, const std::string& outcome) {
    return metrics
        .counter("sluice_client_calls_total", "",
                 {{"command", "get"}, {"traffic", traffic}, {"outcome", outcome}})
        .value();
  };
  EXPECT_EQ(count("live", "ok"), 1u);
  EXPECT_EQ(count("live", "not_found"), 1u);
  EXPECT_EQ(count("shadow", "ok"), 1u);
}

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

TEST_F(ClientTest, RES_1_one_name_of_ours_is_one_command_of_the_callees) {
  chain({});
  RemoteCommand command = reads("get");
  command.callee = "one";
  (void)client->add(command);
  (void)client->add(command);
  command.callee = "two";
  EXPECT_DEATH((void)client->add(command), "declared twice, differently");
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
