// The outbound chain in virtual time: order, log, trace and metrics, and what may be called from where.
#include "rpc/client_fixture.hpp"
#include "sluice/flow/combine.hpp"
#include "sluice/flow/flow.hpp"
#include "sluice/rpc/flow_handler.hpp"

namespace sluice::rpc {
namespace {

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

TEST_F(ClientTest, only_external_stages_may_call_what_is_not_read_only) {
  chain({});
  outside = false;
  EXPECT_EQ(call(client->add(writes("put"))).error().code(), "call_from_pure_stage");
  EXPECT_TRUE(channel->seen.empty());
  EXPECT_TRUE(call(client->add(reads("get"))));
  outside = true;
  EXPECT_TRUE(call(client->add(writes("put"))));
}

TEST_F(ClientTest, a_flow_tells_its_stages_what_they_may_call) {
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

TEST_F(ClientTest, in_the_second_phase_too_each_child_of_parallel_has_its_own_leave) {
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

TEST_F(ClientTest, IDEM_12_a_stage_calls_under_its_own_token) {
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

TEST_F(ClientTest, RES_1_one_name_of_ours_is_one_command_of_the_callees) {
  chain({});
  RemoteCommand command = reads("get");
  command.callee = "one";
  (void)client->add(command);
  (void)client->add(command);
  command.callee = "two";
  EXPECT_DEATH((void)client->add(command), "declared twice, differently");
}

}  // namespace
}  // namespace sluice::rpc
