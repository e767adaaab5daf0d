// The same request at two nodes of one store at once: one of them issues, the other is told the same, and what that
// one held for it is free again, or sold elsewhere. The commits of both come in every order, drawn from a seed.
#include <algorithm>
#include <array>

#include "apps/voucher/downstream.hpp"
#include "apps/voucher/segments.hpp"
#include "sluice/rpc/client.hpp"
#include "voucher/batch_fixture.hpp"
#include "voucher/slow_store.hpp"

namespace sluice::voucher {
namespace {

/// A code service that leases what is told of, and holds those who finish a segment to their word.
class CodeDesk final : public rpc::Channel {
 public:
  CodeDesk(World& world, std::string voucher, std::int64_t codes) : world_(world), voucher_(std::move(voucher)), codes_(codes) {}
  Task<Result<rpc::Response>> invoke(const rpc::RemoteCommand&, const rpc::CallContext&, const rpc::Request& request) override {
    Result<rpc::Response> response;
    response->body = std::make_shared<const Bytes>(answer(Json::parse(*request.body)));
    co_return response;
  }

 private:
  std::string answer(const Json& asked) {
    const Holder holder{"", asked["owner"]};
    const WallTime now = world_.clock.wall(), expires = now + std::chrono::hours(1);
    for (const auto& done : asked["finished"]) finish(holder, done["first"], done["token"]);
    std::vector<Segment> given;
    if (asked["resume"]) given = leases_.resume(holder, expires);
    if (given.empty())
      if (auto fresh = leases_.lease(holder, codes_, asked["count"], now, expires)) given.push_back(*fresh);
    Json segments = Json::array();
    for (const auto& one : given) {
      Json texts = Json::array();
      for (std::int64_t n = one.first; n < one.first + one.count; ++n) texts.push_back(voucher_ + "-CODE-" + std::to_string(n));
      segments.push_back({{"voucher", voucher_}, {"first", one.first}, {"token", one.token}, {"codes", texts}});
    }
    if (given.empty()) {
      segments.push_back({{"voucher", voucher_}, {"none", true}});
      if (leases_.leased() != 0) segments[0]["leased_ms"] = 1000;
    }
    return Json{{"lease_ms", 3'600'000}, {"segments", segments}}.dump();
  }
  void finish(const Holder& holder, std::int64_t first, std::uint64_t token) {
    for (const auto& one : leases_.all())
      for (std::int64_t n = one.first; one.first == first && n < first + one.count; ++n)
        EXPECT_TRUE(world_.row(assigned_key("voucher", voucher_, n))) << "code " << n << " of " << voucher_ << " is nobody's, and burnt";
    (void)leases_.finish(holder, first, token);
  }
  World& world_;
  const std::string voucher_;
  const std::int64_t codes_;
  Segments leases_;
};

/// One of the nodes; its commits wait until the test lets the next of them through.
struct RacingNode {
  RacingNode(World& world, std::uint16_t number, const std::shared_ptr<CodeDesk>& desk, bool of_code_service)
      : slow(*world.store), supply(slow), codes(desk, {}),
        downstream(supply, &codes, nullptr, world.clock, world.random, options("node-" + std::to_string(number))),
        node(world.clock, number, slow, of_code_service ? &downstream : nullptr) {
    slow.hold_commits = true;
  }
  static DownstreamOptions options(std::string owner) {
    DownstreamOptions options;
    options.owner = std::move(owner);
    options.segment_codes = 5;
    return options;
  }
  SlowStore slow;
  CodeSupply supply;
  rpc::Client codes;
  Downstream downstream;
  Node node;
};

class VoucherOneKeyTwoNodes : public VoucherBatchTest {
 protected:
  static constexpr int kRounds = 20, kWaves = 2, kBatches = 12, kItems = 3, kStock = kWaves * kBatches * kItems;

  void SetUp() override {
    VoucherBatchTest::SetUp();
    for (int i = 0; i < kItems; ++i) add_user("u" + std::to_string(i));
  }
  void let_through(std::array<RacingNode*, 2> nodes) {
    for (;;) {
      drive();
      std::vector<SlowStore*> waiting;
      for (RacingNode* one : nodes)
        if (!one->slow.commits.empty()) waiting.push_back(&one->slow);
      if (waiting.empty()) return;
      SlowStore& next = *waiting[world.random.below(waiting.size())];
      auto* const commit = next.commits.front();
      next.commits.erase(next.commits.begin());
      if (answers_get_lost && world.random.one_in(6))
        lose_answer(*commit);
      else
        world.store->submit(*commit);
    }
  }
  /// As of a connection that breaks during COMMIT: it was taken, or it was not.
  void lose_answer(store::PendingCommit& pending) {
    if (world.random.one_in(2)) (void)store::commit_and_wait(*world.store, store::Commit(pending.commit));
    pending.outcome = fail(FailureKind::unknown_outcome, "commit_unknown", "lost by the test");
    pending.lane->post(pending);
  }
  bool answers_get_lost = false;
  /// Each batch at both nodes at once, in an order of their own, until all its items have an end. By batch.
  std::vector<Json> sell(const std::string& voucher, int wave, RacingNode& one, RacingNode& two) {
    std::vector<Json> told(kBatches);
    const auto open = [](const Json& results) {
      return results.empty() || std::ranges::any_of(results, [](const Json& item) { return item["status"] == "failed"; });
    };
    for (int turn = 0; turn < 50 && std::ranges::any_of(told, open); ++turn) {
      std::vector<std::pair<int, std::unique_ptr<Call>>> calls;
      for (RacingNode* node : {&one, &two}) {
        std::vector<int> order;
        for (int i = 0; i < kBatches; ++i)
          if (open(told[i])) order.insert(order.begin() + static_cast<std::ptrdiff_t>(world.random.below(order.size() + 1)), i);
        for (const int i : order) {
          std::vector<std::pair<std::string, std::string>> items;
          for (int n = 0; n < kItems; ++n) items.emplace_back("u" + std::to_string(n), voucher);
          const std::string id = voucher + "-" + std::to_string(wave * kBatches + i);
          calls.emplace_back(i, start_on(node->node, id, batch(id, items)));
        }
      }
      let_through({&one, &two});
      for (auto& [i, call] : calls) {
        const Json reply = said(*call);
        last_told_ = reply;
        if (!reply.is_object() || open(reply["results"])) continue;
        EXPECT_TRUE(open(told[i]) || reply["results"] == told[i]) << "both are told the same: " << reply << " and " << told[i];
        told[i] = reply["results"];
      }
      world.clock.advance(seconds(1));  // until it is asked again for codes that were all leased
    }
    return told;
  }
  Json last_told_;
  void sell_out(bool of_code_service) {
    for (int round = 0; round < kRounds; ++round) {
      const std::string voucher = "V" + std::to_string(round);  // part of its codes: capitals
      open_voucher(voucher, kStock, kStock, 1000);
      const auto desk = std::make_shared<CodeDesk>(world, voucher, kStock);
      const auto number = static_cast<std::uint16_t>(2 + 2 * round);
      RacingNode one(world, number, desk, of_code_service), two(world, static_cast<std::uint16_t>(number + 1), desk, of_code_service);
      // In the first both nodes have codes for all of it; the second sells what the first gave back.
      for (int wave = 0; wave < kWaves; ++wave) {
        const std::vector<Json> told = sell(voucher, wave, one, two);
        for (const Json& results : told)
          for (const Json& item : results) EXPECT_EQ(item["status"], "issued") << "round " << round << ": " << item.dump();
      }
      ASSERT_EQ(world.row(stock_key("voucher", voucher))->number, 0)
          << "the whole stock can be issued; round " << round << ", last told " << last_told_.dump();
    }
    const Books books = world.books();
    EXPECT_EQ(books.issued, kRounds * kStock);
    for (const auto& wrong : books.wrong) ADD_FAILURE() << wrong;
  }
};

TEST_F(VoucherOneKeyTwoNodes, VOUCHER_4_VOUCHER_5_no_code_of_the_store_is_lost_to_the_node_that_came_second) { sell_out(false); }

TEST_F(VoucherOneKeyTwoNodes, VOUCHER_4_VOUCHER_5_no_code_of_the_store_is_lost_when_nobody_knows_at_first_who_came_second) {
  answers_get_lost = true;
  sell_out(false);
}

TEST_F(VoucherOneKeyTwoNodes, VOUCHER_5_VOUCHER_6_no_leased_code_is_lost_when_nobody_knows_at_first_who_came_second) {
  answers_get_lost = true;
  sell_out(true);
}

TEST_F(VoucherOneKeyTwoNodes, VOUCHER_5_VOUCHER_6_no_leased_code_is_lost_to_the_node_that_came_second) { sell_out(true); }

}  // namespace
}  // namespace sluice::voucher
