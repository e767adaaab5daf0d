// A registry over a store, on a lane that the test drives by hand.
#pragma once
#include <gtest/gtest.h>

#include <deque>

#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/rpc/registry.hpp"
#include "support/any_store.hpp"

namespace sluice::rpc {

struct Got {
  bool done = false;
  Answer answer;
  Reply reply() const { return *Reply::decode(*answer.reply); }
  std::string code() const {
    return answer.kind == Answer::Kind::failure ? std::string(answer.failure->code()) : "";
  }
};
/// `got` gets the answer, once. It lives until then.
inline void hear(Invocation& invocation, Got& got) {
  invocation.owner = &got;
  invocation.done = [](Invocation& i, Answer answer) noexcept {
    auto* g = static_cast<Got*>(i.owner);
    EXPECT_FALSE(g->done) << "answered twice";
    g->done = true;
    g->answer = std::move(answer);
  };
}

class RegistryTest : public ::testing::Test {
 protected:
  RegistryTest() : registry(*store, keys, ids) {
    principal = std::make_shared<Principal>(Principal{"ann", {"shop:order.*"}, false});
  }
  ~RegistryTest() override {
    lane.run_ready();
    store->close();
  }

  CommandSpec spec(std::string name = "order.place") {
    CommandSpec s;
    s.name = std::move(name);
    s.app = "shop";
    s.handler = [this](Invocation& invocation) {
      ++runs;
      held.push_back(&invocation);
      if (!hold) answer_next("{\"ok\":true}");
    };
    return s;
  }
  void answer_next(std::string body) {
    auto* next = held.front();
    held.pop_front();
    next->finish(Answer::of(Reply::ok(std::move(body))));
  }
  Invocation& make(std::string name, std::optional<std::string> key, std::string payload = "{}") {
    auto& invocation = invocations.emplace_back();
    invocation.command.name = std::move(name);
    invocation.command.version = 0;
    invocation.command.ns = Namespace("shop");
    invocation.command.principal = principal;
    invocation.command.idempotency_key = std::move(key);
    invocation.command.payload = std::move(payload);
    invocation.lane = &lane;
    return invocation;
  }
  Got& send(Invocation& invocation) { return send(invocation, registry); }
  Got& send(Invocation& invocation, Registry& through) {
    auto& got = answers.emplace_back();
    hear(invocation, got);
    through.dispatch(invocation);
    lane.run_ready();
    return got;
  }
  std::vector<store::AuditRow> audit() {
    lane.run_ready();
    return *store::ask_now(*store, store::ListAudit{});
  }

  sim::SimClock clock;
  sim::SimRandom random{1};
  Lane lane{clock};
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  idempotency::Keys keys{clock, store.get()};
  IdSource ids{clock, 1};
  Registry registry;
  std::shared_ptr<Principal> principal;
  std::deque<Invocation> invocations;
  std::deque<Got> answers;
  std::deque<Invocation*> held;
  bool hold = false;
  int runs = 0;
};

}  // namespace sluice::rpc
