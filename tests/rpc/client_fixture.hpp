// A client over a channel that answers from a script, in virtual time, for tests.
#pragma once
#include <gtest/gtest.h>

#include <deque>

#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/resilience/rule.hpp"
#include "sluice/rpc/interceptors.hpp"

namespace sluice::rpc {

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

}  // namespace sluice::rpc
