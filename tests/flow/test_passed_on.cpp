// Of the nodes that live, the one that can finish what a dead one left is given it.
#include "flow_fixture.hpp"
#include "sluice/store/nodes.hpp"
#include "support/forwarding_store.hpp"

namespace sluice::flow {
namespace {

/// What the database knows of nodes: the exchanges are of node 1, which is dead.
struct Shared {
  std::vector<std::uint16_t> living;
  std::uint16_t adopter = 0;
  std::uint64_t changes = 0;
  std::vector<std::uint16_t> passed_to;
};

class OneOfNodes final : public testing_support::ForwardingStore, public store::Nodes {
 public:
  OneOfNodes(store::Store& inner, Shared& shared, std::uint16_t number) : ForwardingStore(inner), shared_(shared), number_(number) {
    shared_.living.push_back(number);
  }
  std::uint16_t node() const override { return number_; }
  bool ours(ExchangeId) const override { return shared_.adopter == number_; }
  std::uint64_t takeovers() const override { return shared_.changes; }
  std::size_t living() const override { return shared_.living.size(); }
  void pass_on(std::uint16_t number) override {
    EXPECT_EQ(number, 1u);
    EXPECT_EQ(shared_.adopter, number_) << "what is another's is not passed on";
    const auto self = std::ranges::find(shared_.living, number_);
    shared_.adopter = self + 1 == shared_.living.end() ? shared_.living.front() : *(self + 1);
    shared_.passed_to.push_back(shared_.adopter);
    ++shared_.changes;
  }

 private:
  Shared& shared_;
  const std::uint16_t number_;
};

class PassedOn : public FlowTest {
 protected:
  /// Node 1 died once its first intent was durable.
  void left_behind(std::uint32_t version) {
    class Dying final : public testing_support::ForwardingStore {
     public:
      using ForwardingStore::ForwardingStore;
      void submit(store::PendingCommit& pending) override { (void)store::commit_and_wait(inner_, pending.commit); }
    } dying(*store);
    Flow old("f", {.version = version, .store = &dying});
    old.group("main", {record.stage("a", Effect::external)});
    start(old, exchange());
    settle_lane();
    record.calls.clear();
  }
  struct Node {
    Node(PassedOn& test, std::uint16_t number, std::uint32_t version)
        : view(*test.store, test.shared, number), flow("f", {.version = version, .store = &view}) {
      flow.group("main", {test.record.stage("a", Effect::external)});
      flows.add(flow);
      recovery = std::make_unique<Recovery>(view, flows, test.lane);
      test.lane.post([this] { recovery->keep_sweeping(seconds(30), [](const auto&) {}); });
    }
    OneOfNodes view;
    Flow flow;
    Flows flows;
    std::unique_ptr<Recovery> recovery;
  };
  std::size_t in_doubt() { return list_in_doubt(*store, 10)->size(); }
  std::size_t open() { return store::ask_now(*store, store::ListOpen{})->size(); }

  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  Shared shared;
};

TEST_F(PassedOn, NODE_4_FLOW_24_the_living_node_that_knows_a_flow_finishes_what_another_adopted) {
  left_behind(1);
  shared.adopter = 2;
  Node newer(*this, 2, 2);
  Node older(*this, 3, 1);
  drive([&] { return open() == 0; });
  EXPECT_EQ(open(), 0u);
  EXPECT_EQ(record.calls, std::vector<std::string>{"a.abort(0)"}) << "undone once, by the node that can";
  EXPECT_EQ(shared.passed_to, std::vector<std::uint16_t>{3});
  for (const auto& row : *store::ask_now(*store, store::ListAudit{}))
    EXPECT_EQ(row.detail.find("unknown_version"), std::string::npos) << "nobody was told in doubt of what a node can finish";
}

TEST_F(PassedOn, NODE_4_FLOW_24_what_no_living_node_knows_is_listed_when_each_was_asked) {
  left_behind(1);
  shared.adopter = 2;
  Node newer(*this, 2, 2);
  Node newest(*this, 3, 3);
  advance(seconds(5));
  EXPECT_EQ(in_doubt(), 1u);
  EXPECT_EQ(shared.passed_to, (std::vector<std::uint16_t>{3, 2})) << "asked once each";
  // One that knows it comes later, and has its turn when it goes round again.
  Node older(*this, 4, 1);
  advance(seconds(150));
  EXPECT_EQ(open(), 0u);
  EXPECT_EQ(in_doubt(), 0u);
  EXPECT_LE(shared.passed_to.size(), 9u) << "not in a circle without end";
}

TEST_F(PassedOn, FLOW_24_what_is_unknown_is_listed_while_something_else_of_the_dead_node_sleeps_here) {
  left_behind(1);
  Flow sleeping("sleeping", {.store = store.get()});
  sleeping.group("main", {func("wait", [](Exchange& x) -> Result<Vote> {
                   if (auto expected = x.expect_wake("box"); !expected) return fail(expected.error());
                   return Vote::pause(seconds(600));
                 }, Effect::store)});
  start(sleeping, exchange());  // adopted with it, say
  settle_lane();
  shared.adopter = 2;
  Node newer(*this, 2, 2);
  newer.flows.add(sleeping);
  Node older(*this, 3, 1);
  advance(seconds(5));
  EXPECT_EQ(in_doubt(), 1u);
  EXPECT_TRUE(shared.passed_to.empty()) << "one node at a time works on what a dead one left";
}

TEST_F(PassedOn, FLOW_24_a_node_that_is_alone_lists_what_it_does_not_know_at_once) {
  left_behind(1);
  shared.adopter = 2;
  Node newer(*this, 2, 2);
  advance(milliseconds(10));
  EXPECT_EQ(in_doubt(), 1u);
  EXPECT_TRUE(shared.passed_to.empty());
}

}  // namespace
}  // namespace sluice::flow
