// The registry over a store that answers oddly: late, not at all, or without saying what became of a Commit.
#pragma once
#include "registry_fixture.hpp"
#include "support/forwarding_store.hpp"

namespace sluice::rpc {

/// Applies the k-th Commit, and answers unknown_outcome when told to.
class OddStore final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  int at = -1;
  int seen = 0;
  store::PendingCommit* held = nullptr;
  std::function<void()> before;
  void submit(store::PendingCommit& pending) override {
    if (before) before();
    if (seen++ != at) return inner_.submit(pending);
    (void)store::commit_and_wait(inner_, pending.commit);
    pending.outcome = fail(FailureKind::unknown_outcome, "", "lost");
    held = &pending;
  }
  void tell() {
    auto* pending = std::exchange(held, nullptr);
    pending->lane->post(*pending);
  }
  bool ask(store::PendingQuery& pending) override {
    if (!silent || !std::holds_alternative<store::ListOpen>(pending.query)) return inner_.ask(pending);
    unanswered = &pending;
    return false;
  }
  bool silent = false;  ///< as a database that stands still
  store::PendingQuery* unanswered = nullptr;
  void answer_late() {
    auto* pending = std::exchange(unanswered, nullptr);
    (void)inner_.ask(*pending);
    pending->lane->post(*pending);
  }
  void close() override { inner_.close(); }
};

class RegistrySentences : public ::testing::Test {
 protected:
  RegistrySentences() {
    principal = std::make_shared<Principal>(Principal{"ann", {"shop:order.*"}, false});
    restart();
  }
  ~RegistrySentences() override {
    while (lane.run_ready() != 0) {
    }
    store.close();
  }
  void restart() {
    registry.reset();
    keys = std::make_unique<idempotency::Keys>(clock, &store);
    registry = std::make_unique<Registry>(store, *keys, ids, RegistryOptions{.metrics = &metrics});
  }
  CommandSpec spec(Handler handler, std::uint32_t version = 1) {
    CommandSpec s;
    s.name = "order.place";
    s.app = "shop";
    s.version = version;
    s.handler = std::move(handler);
    return s;
  }
  Got& send(std::optional<std::string> key = "k", bool as_anonymous = false, std::uint32_t version = 0) {
    auto& invocation = invocations.emplace_back();
    invocation.command.name = "order.place";
    invocation.command.version = version;
    invocation.command.ns = Namespace("shop");
    if (!as_anonymous) invocation.command.principal = principal;
    invocation.command.idempotency_key = std::move(key);
    invocation.command.payload = "{}";
    invocation.lane = &lane;
    auto& got = answers.emplace_back();
    hear(invocation, got);
    registry->dispatch(invocation);
    while (lane.run_ready() != 0) {
    }
    return got;
  }

  sim::SimClock clock;
  sim::SimRandom random{1};
  Lane lane{clock};
  Metrics metrics;
  std::unique_ptr<store::Store> inner = testing_support::make_any_store(clock, random);
  OddStore store{*inner};
  std::unique_ptr<idempotency::Keys> keys;
  IdSource ids{clock, 1};
  std::unique_ptr<Registry> registry;
  std::shared_ptr<Principal> principal;
  std::deque<Invocation> invocations;
  std::deque<Got> answers;
  int runs = 0;
};

}  // namespace sluice::rpc
