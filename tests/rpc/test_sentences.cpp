// Sentences of the specification at their edges, through the registry.
#include <gtest/gtest.h>

#include <deque>

#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/rpc/registry.hpp"
#include "sluice/store/memory.hpp"

namespace sluice::rpc {
namespace {

struct Got {
  bool done = false;
  Answer answer;
  std::string code() const {
    return answer.kind == Answer::Kind::failure ? std::string(answer.failure->code()) : "";
  }
};

/// Applies the k-th Commit, and answers unknown_outcome when told to.
class OddStore final : public store::Store {
 public:
  explicit OddStore(store::Store& inner) : inner_(inner) {}
  int at = -1;
  int seen = 0;
  store::PendingCommit* held = nullptr;
  void submit(store::PendingCommit& pending) override {
    if (seen++ != at) return inner_.submit(pending);
    (void)store::commit_and_wait(inner_, pending.commit);
    pending.outcome = fail(FailureKind::unknown_outcome, "", "lost");
    held = &pending;
  }
  void tell() {
    auto* pending = std::exchange(held, nullptr);
    pending->lane->post(*pending);
  }
  bool ask(store::PendingQuery& pending) override { return inner_.ask(pending); }
  WallTime now() override { return inner_.now(); }
  std::uint64_t incarnation() const override { return inner_.incarnation(); }
  std::uint64_t largest_id() override { return inner_.largest_id(); }
  void set_expander(store::Expander* e) override { inner_.set_expander(e); }
  Result<store::PurgeResult> purge(milliseconds keep, std::size_t limit) override { return inner_.purge(keep, limit); }
  store::StoreStats stats() const override { return inner_.stats(); }
  Status health() override { return inner_.health(); }
  void close() override { inner_.close(); }

 private:
  store::Store& inner_;
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
    registry = std::make_unique<Registry>(store, *keys, ids);
  }
  CommandSpec spec(Handler handler, std::uint32_t version = 1) {
    CommandSpec s;
    s.name = "order.place";
    s.app = "shop";
    s.version = version;
    s.handler = std::move(handler);
    return s;
  }
  Got& send(std::optional<std::string> key = "k", bool as_anonymous = false) {
    auto& invocation = invocations.emplace_back();
    invocation.command.name = "order.place";
    invocation.command.version = 0;
    invocation.command.ns = Namespace("shop");
    if (!as_anonymous) invocation.command.principal = principal;
    invocation.command.idempotency_key = std::move(key);
    invocation.command.payload = "{}";
    invocation.lane = &lane;
    auto& got = answers.emplace_back();
    invocation.owner = &got;
    invocation.done = [](Invocation& i, Answer answer) noexcept {
      auto* g = static_cast<Got*>(i.owner);
      g->done = true;
      g->answer = std::move(answer);
    };
    registry->dispatch(invocation);
    while (lane.run_ready() != 0) {
    }
    return got;
  }

  sim::SimClock clock;
  sim::SimRandom random{1};
  Lane lane{clock};
  std::unique_ptr<store::Store> inner = store::make_memory_store(clock, random);
  OddStore store{*inner};
  std::unique_ptr<idempotency::Keys> keys;
  IdSource ids{clock, 1};
  std::unique_ptr<Registry> registry;
  std::shared_ptr<Principal> principal;
  std::deque<Invocation> invocations;
  std::deque<Got> answers;
  int runs = 0;
};

TEST_F(RegistrySentences, IDEM_7_in_doubt_pending_and_unknown_are_never_run_again_by_a_retry) {
  for (int kind = 0; kind < 3; ++kind) {
    SCOPED_TRACE(kind);
    runs = 0;
    restart();
    ASSERT_TRUE(registry->add(spec([&](Invocation& i) {
      ++runs;
      if (kind == 0) return i.finish(Answer::in_doubt(i.exchange()));
      if (kind == 1) return i.finish(Answer::pending(i.exchange()));
      i.finish(Answer::of(Failure(FailureKind::unknown_outcome, "lost", "")));
    })));
    send("k" + std::to_string(kind));
    send("k" + std::to_string(kind));
    EXPECT_EQ(runs, 1);
  }
}

// The caller's own branch is applied without the key: a retry after a restart applies it again.
TEST_F(RegistrySentences, IDEM_7_a_refusal_with_a_branch_is_stored_with_the_branch) {
  const Handler handler = [&](Invocation& invocation) {
    ++runs;
    store::Commit commit;
    commit.requires_.push_back({store::KvAtLeast{{"shop", "stock", "a"}, 1}, "sold_out", 0});
    commit.otherwise.push_back({store::KvAdd{{"shop", "waiting_list", "a"}, 1}});
    invocation.finish_with(std::move(commit), Reply::ok("{}"));
  };
  ASSERT_TRUE(registry->add(spec(handler)));
  send();
  restart();
  ASSERT_TRUE(registry->add(spec(handler)));
  send();
  const auto rows = store::ask_now(*inner, store::GetRows{{{"shop", "waiting_list", "a"}}});
  EXPECT_EQ(rows->at(0)->number, 1) << "the branch took effect twice under one key";
  EXPECT_EQ(runs, 1);
}

/// One permit; who comes later queues.
class Queue final : public Gatekeeper {
 public:
  void enter(Invocation& invocation) override {
    if (inside_) return queue_.push_back(&invocation);
    inside_ = true;
    invocation.entered({});
  }
  void leave(Invocation&) noexcept override { inside_ = false; }
  bool forget(Invocation& invocation) noexcept override { return std::erase(queue_, &invocation) != 0; }
  std::size_t queued() const { return queue_.size(); }

 private:
  bool inside_ = false;
  std::deque<Invocation*> queue_;
};

}  // namespace
}  // namespace sluice::rpc
