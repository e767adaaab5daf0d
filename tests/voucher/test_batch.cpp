// The batch command: what comes back of a batch, whole or item by item.
#include "support/forwarding_store.hpp"
#include "voucher/batch_fixture.hpp"

namespace sluice::voucher {
namespace {

using VoucherBatch = VoucherBatchTest;

TEST_F(VoucherBatch, VOUCHER_2_one_result_per_item_in_order_and_duplicates_are_named) {
  open_voucher("v1", 10, 10);
  open_voucher("fr", 10, 10, 1, "FR");
  add_user("ann");
  const Json reply = send("k", batch("r1", {{"ann", "v1"}, {"ann", "v1"}, {"bob", "v1"}, {"ann", "none"}, {"ann", "fr"}}));
  const auto& results = reply["results"];
  ASSERT_EQ(results.size(), 5u);
  EXPECT_EQ(results[0]["status"], "issued");
  EXPECT_EQ(results[0]["code"], "v1-CODE-0");
  EXPECT_EQ(results[1]["reason"], "duplicate_item");
  EXPECT_EQ(results[2]["reason"], "unknown_user");
  EXPECT_EQ(results[3]["reason"], "unknown_voucher");
  EXPECT_EQ(results[4]["reason"], "wrong_region");
}

TEST_F(VoucherBatch, VOUCHER_2_a_malformed_empty_or_too_long_batch_fails_as_a_whole) {
  EXPECT_EQ(send("a", "[]"), "bad_batch");
  EXPECT_EQ(send("b", batch("r", {})), "empty_batch");
  EXPECT_EQ(send("c", batch("r", std::vector<std::pair<std::string, std::string>>(501, {"u", "v"}))), "batch_too_large");
  EXPECT_EQ(send("d", batch("bad id", {{"u", "v"}})), "bad_batch");
  EXPECT_EQ(send("e", batch("r", {{"u", "v"}}, "de")), "bad_batch") << "no region";
  EXPECT_EQ(send("f", R"({"request_id":"r","region":"DE","items":[{"user":"u"}]})"), "bad_batch");
  EXPECT_EQ(send("g", R"({"request_id":"r","region":"DE","items":[7]})"), "bad_batch");
}

TEST_F(VoucherBatch, VOUCHER_2_what_is_wrong_in_a_batch_is_named_with_what_was_expected_and_what_came) {
  const auto told = [&](const std::string& payload) {
    static int asked = 0;
    auto call = start("w" + std::to_string(++asked), payload);
    drive();
    const auto reply = call->answer && call->answer->reply ? Reply::decode(*call->answer->reply) : Result<Reply>(Reply());
    return reply ? reply->detail : reply.error().to_string();
  };
  EXPECT_EQ(told(R"({"request_id":"r","region":"DE","itemz":[{"user":"u","voucher":"v"}]})"),
            R"(request: expected members request_id, region, items, got "itemz")");
  EXPECT_EQ(told(R"({"request_id":"r","region":"S G","items":[{"user":"u","voucher":"v"}]})"),
            R"(request.region: expected two capital letters, or ALL, got "S G")");
  EXPECT_EQ(told(R"({"request_id":"r","region":"DE","items":[{"user":"u","voucher":"v"},{"user":"u","vouchr":"v"}]})"),
            R"(request.items[1]: expected members user, voucher, got "vouchr")");
  EXPECT_EQ(told(R"({"request_id":"r","region":"DE","items":[{"user":"u"}]})"),
            R"(request.items[0].voucher: expected 1 to 64 of A-Z a-z 0-9 - _ ., got nothing)");
  EXPECT_EQ(told(R"({"request_id":7,"region":"DE","items":[]})"), R"(request.request_id: expected 1 to 64 of A-Z a-z 0-9 - _ ., got 7)");
  EXPECT_EQ(told(R"({"request_id":"r","region":"DE","items":{}})"), "request.items: expected a list, got {}");
  EXPECT_EQ(told("{"), "expected an object with request_id, region and items, got what is no JSON");
  EXPECT_LT(told(Json{{"request_id", std::string(10'000, ' ')}}.dump()).size(), 200u) << "a request is not repeated whole";
}

TEST_F(VoucherBatch, VOUCHER_2_what_came_is_told_cut_between_two_characters) {
  std::string euros;
  int asked = 0;
  for (int i = 0; i < 60; ++i) euros += "\u20ac";
  for (const std::string shift : {"x", "xx", "xxx"})
    for (const std::string& payload : {R"({"request_id":")" + shift + euros + R"(","region":"DE","items":[]})", R"({")" + shift + euros + R"(":1})",
                                       R"({"request_id":"r","region":"DE","items":[")" + shift + euros + R"("]})"}) {
      auto call = start("key " + std::to_string(asked++), payload);
      drive();
      ASSERT_TRUE(call->answer && call->answer->reply) << payload;
      const std::string told = Reply::decode(*call->answer->reply)->detail;
      EXPECT_THAT(told, testing::HasSubstr("x\u20ac")) << "or nothing is shown";
      EXPECT_EQ(utf8_until(told), told.size()) << told;
    }
}

TEST_F(VoucherBatch, VOUCHER_4_quotas_hold_and_the_books_balance) {
  open_voucher("v1", 10, 10, 2);
  add_user("ann");
  for (int i = 0; i < 4; ++i) {
    const std::string n = std::to_string(i);
    const Json reply = send("k" + n, batch("r" + n, {{"ann", "v1"}}));
    EXPECT_EQ(reply["results"][0]["status"], i < 2 ? "issued" : "refused") << reply;
    if (i >= 2) EXPECT_EQ(reply["results"][0]["reason"], "user_quota");
  }
  const Books books = world.books();
  EXPECT_EQ(books.issued, 2);
  for (const auto& wrong : books.wrong) ADD_FAILURE() << wrong;
}

TEST_F(VoucherBatch, VOUCHER_5_a_repeated_request_gets_the_same_bytes_also_after_memory_is_gone) {
  open_voucher("v1", 10, 10);
  add_user("ann");
  const std::string payload = batch("r1", {{"ann", "v1"}});
  send("k", payload);
  const Bytes first = last_;
  send("k", payload);
  EXPECT_EQ(last_, first);
  send("another-key", payload);
  EXPECT_EQ(last_, first) << "the request id counts, whatever the key";
  EXPECT_EQ(send("third", batch("r1", {{"ann", "v2"}})), "fingerprint_mismatch");
  EXPECT_EQ(world.books().issued, 1);
}

TEST_F(VoucherBatch, VOUCHER_5_another_batch_under_the_same_request_id_is_refused_and_runs_nothing) {
  open_voucher("v1", 10, 10);
  for (const char* user : {"ann", "ben", "cat", "dan"}) add_user(user);
  const std::string both = batch("r1", {{"ann", "v1"}, {"ben", "v1"}});
  send("k", both);
  const Bytes first = last_;
  EXPECT_EQ(send("k2", batch("r1", {{"ann", "v1"}, {"ben", "v1"}, {"cat", "v1"}})), "fingerprint_mismatch") << "longer";
  EXPECT_EQ(send("k3", batch("r1", {{"ann", "v1"}})), "fingerprint_mismatch") << "shorter";
  EXPECT_EQ(send("k4", batch("r1", {{"cat", "v1"}, {"ben", "v1"}, {"dan", "v1"}})), "fingerprint_mismatch");
  EXPECT_EQ(send("k5", batch("r1", {{"ann", "v1"}, {"ben", "v1"}}, "FR")), "fingerprint_mismatch") << "another region";
  EXPECT_EQ(world.books().issued, 2) << "a batch that is refused whole has issued nothing";
  send("k6", both);
  EXPECT_EQ(last_, first) << "and the first one is told as before";
}

TEST_F(VoucherBatch, VOUCHER_5_equal_batches_at_once_run_once_and_differing_ones_do_not_wait_for_each_other) {
  open_voucher("v1", 10, 10);
  for (const char* user : {"ann", "ben"}) add_user(user);
  const std::string both = batch("r1", {{"ann", "v1"}, {"ben", "v1"}});
  std::vector<std::unique_ptr<Call>> calls;
  for (const char* key : {"a", "b", "c"}) calls.push_back(start(key, both));
  calls.push_back(start("d", batch("r1", {{"ben", "v1"}, {"ann", "v1"}})));
  drive();
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(calls[i]->answer && calls[i]->answer->reply);
    EXPECT_EQ(*calls[i]->answer->reply, *calls[0]->answer->reply);
  }
  ASSERT_TRUE(calls[3]->answer && calls[3]->answer->failure);
  EXPECT_EQ(calls[3]->answer->failure->kind(), FailureKind::fingerprint_mismatch);
  EXPECT_EQ(world.books().issued, 2);
}

TEST_F(VoucherBatch, VOUCHER_9_shadow_traffic_takes_nothing_of_a_callers_rate) {
  admin->may_shadow = true;
  resilience::HotKeyOptions rate;
  rate.limit = rate.burst = 2;
  resilience::HotKeys limit(rate, world.random);
  distribution = std::make_unique<Distribution>(*world.store, world.clock, ids, nullptr, CallerLimits{&limit, nullptr});
  std::string refusal;
  const auto asked = [&](const std::string& id, bool shadow) {
    auto call = start(id, batch(id, {{"ann", "v1"}, {"ben", "v1"}}));
    call->command.ns = Namespace("voucher", shadow);
    drive();
    if (call->answer && call->answer->failure) refusal = std::string(call->answer->failure->code());
    return call->answer && !call->answer->failure;
  };
  EXPECT_TRUE(asked("s1", true)) << refusal;
  EXPECT_FALSE(asked("s2", true)) << "shadow traffic has a rate of its own";
  EXPECT_TRUE(asked("l1", false)) << "and live traffic all of its own";
  EXPECT_FALSE(asked("l2", false));
}

TEST_F(VoucherBatch, VOUCHER_7_sold_out_is_remembered_until_it_is_restocked) {
  open_voucher("hot", 1, 10, 100);
  add_user("ann");
  int asked = 0;
  const auto buy = [&] {
    const std::string id = "r" + std::to_string(++asked);
    const Json result = send(id, batch(id, {{"ann", "hot"}}))["results"][0];
    return result["status"] == "issued" ? std::string("issued") : result["reason"].get<std::string>();
  };
  EXPECT_EQ(buy(), "issued");
  EXPECT_EQ(buy(), "sold_out");
  EXPECT_TRUE(distribution->sold_out("voucher", "hot"));
  const auto before = world.row(stock_key("voucher", "hot"))->version;
  EXPECT_EQ(buy(), "sold_out");
  EXPECT_EQ(world.row(stock_key("voucher", "hot"))->version, before) << "the hot row was not touched";
  EXPECT_EQ(send("bad", R"({"voucher":"hot","stock":-1})", "restock"), "bad_restock");
  for (const char* const misspelt : {R"({"voucher":"hot","stok":2})", R"({"voucher":"hot","stock":2,"Stock":2})", R"({"voucher":"hot"})"})
    EXPECT_EQ(send(misspelt, misspelt, "restock"), "bad_restock") << misspelt;
  EXPECT_EQ(send("none", R"({"voucher":"none","stock":1})", "restock"), "unknown_voucher");
  EXPECT_EQ(buy(), "sold_out");
  EXPECT_EQ(send("more", R"({"voucher":"hot","stock":2})", "restock")["stock"], 3);
  EXPECT_EQ(send("more", R"({"voucher":"hot","stock":2})", "restock")["stock"], 3) << "a replay adds nothing";
  EXPECT_EQ(buy(), "issued");
  EXPECT_EQ(buy(), "issued");
  EXPECT_EQ(buy(), "sold_out");
  // Another node of the same store restocks: this one looks again after a while.
  Distribution other(*world.store, world.clock, ids);
  rpc::CommandSpec elsewhere;
  elsewhere.name = "restock-elsewhere";
  elsewhere.app = "voucher";
  elsewhere.handler = rpc::flow_handler(other.restock());
  ASSERT_TRUE(registry.add(std::move(elsewhere)));
  EXPECT_EQ(send("m2", R"({"voucher":"hot","stock":1,"budget_minor":500})", "restock-elsewhere")["stock"], 4);
  EXPECT_EQ(buy(), "sold_out");
  world.clock.advance(kSoldOutFor);
  EXPECT_EQ(buy(), "issued");
  const Books books = world.books();
  EXPECT_EQ(books.issued, 4);
  for (const auto& wrong : books.wrong) ADD_FAILURE() << wrong;
}

// An item that was refused before the restock ends after it.
TEST_F(VoucherBatch, VOUCHER_7_what_was_seen_before_a_restock_is_not_remembered_after_it) {
  SoldOut memory;
  const Instant now = world.clock.now();
  const auto before = memory.mark();
  memory.remove("voucher", "hot");
  memory.add("voucher", "hot", now, before);
  EXPECT_FALSE(memory.has("voucher", "hot", now));
  memory.add("voucher", "cold", now, before);
  EXPECT_TRUE(memory.has("voucher", "cold", now)) << "another voucher was not restocked";
  memory.add("voucher", "hot", now, memory.mark());
  EXPECT_TRUE(memory.has("voucher", "hot", now));
  memory.add("voucher", "hot", now + kSoldOutFor / 2, memory.mark());
  EXPECT_FALSE(memory.has("voucher", "hot", now + kSoldOutFor)) << "who is refused by the memory does not prolong it";
}

// Two nodes of one store with codes of its own: each finds codes assigned that it took for free.
TEST_F(VoucherBatch, VOUCHER_6_a_code_that_another_node_assigned_is_passed_over) {
  Distribution other(*world.store, world.clock, ids);
  rpc::CommandSpec elsewhere;
  elsewhere.name = "batch-elsewhere";
  elsewhere.app = "voucher";
  elsewhere.handler = [&](rpc::Invocation& i) { distribute_batch(i, other); };
  ASSERT_TRUE(registry.add(std::move(elsewhere)));
  open_voucher("v", 100, 10, 100);
  add_user("ann");
  auto buy = [&, asked = 0](const char* node) mutable {
    const std::string id = "r" + std::to_string(++asked);
    return send(id, batch(id, {{"ann", "v"}}), node)["results"][0];
  };
  for (int i = 0; i < 10; ++i) {
    const Json result = buy(i % 3 == 0 ? "batch" : "batch-elsewhere");
    EXPECT_EQ(result["status"], "issued") << i << result.dump();
  }
  for (const char* node : {"batch", "batch-elsewhere"}) EXPECT_EQ(buy(node).value("reason", ""), "no_code") << node;
  for (const auto& wrong : world.books().wrong) ADD_FAILURE() << wrong;
}

// Its sender counts what is answered as done, and does not come again for it.
TEST_F(VoucherBatch, STREAM_16_VOUCHER_8_a_streams_batch_with_an_item_that_may_succeed_later_is_not_done) {
  class Failing final : public testing_support::ForwardingStore {
   public:
    using ForwardingStore::ForwardingStore;
    bool fails = true;
    void submit(store::PendingCommit& pending) override {
      if (!fails) return inner_.submit(pending);
      pending.outcome = fail(FailureKind::unavailable, "store_locked", "");
      pending.lane->post(pending);
    }
  } failing(*world.store);
  Distribution elsewhere(failing, world.clock, ids);
  rpc::CommandSpec spec;
  spec.name = "batch.elsewhere";
  spec.app = "voucher";
  spec.handler = [&](rpc::Invocation& i) { distribute_batch(i, elsewhere); };
  ASSERT_TRUE(registry.add(std::move(spec)));
  open_voucher("v1", 10, 10);
  add_user("ann");
  const auto once = [&](bool of_a_stream) {
    auto call = prepared("k", batch("r1", {{"ann", "v1"}}), "batch.elsewhere");
    if (of_a_stream) call->keep_key_for = std::chrono::hours(1);
    auto* const raw = call.get();
    lane.post([&] { registry.dispatch(*raw); });
    drive();
    return said(*call);
  };
  EXPECT_EQ(once(true), "items_not_done");
  EXPECT_EQ(once(false)["results"][0]["retryable"], true) << "any other caller reads the results";
  failing.fails = false;
  EXPECT_EQ(once(true)["results"][0]["status"], "issued");
}

TEST_F(VoucherBatch, VOUCHER_6_no_code_is_not_told_while_the_last_one_is_held_by_an_item_that_is_refused) {
  open_voucher("q", 100, 2, 1);
  for (const char* user : {"ann", "ben"}) add_user(user);
  ASSERT_EQ(send("a", batch("a", {{"ann", "q"}}))["results"][0]["status"], "issued");
  const Json both = send("b", batch("b", {{"ann", "q"}, {"ben", "q"}}))["results"];
  EXPECT_EQ(both[0]["reason"], "user_quota");
  EXPECT_EQ(both[1]["status"], "issued") << both.dump();
}

TEST_F(VoucherBatch, VOUCHER_6_a_code_of_which_nobody_knows_is_given_when_the_store_says_that_it_is_free) {
  open_voucher("v", 100, 1);
  CodeAllocator codes(*world.store);
  const auto reserve = [&] { return finish(codes.reserve("voucher", "v")); };
  auto one = reserve();
  ASSERT_TRUE(one && *one);
  const auto held = reserve();
  ASSERT_FALSE(held) << "it may come back";
  EXPECT_EQ(held.error().code(), kCodesLeased);
  EXPECT_TRUE(held.error().retryable());
  (*one)->unknown();
  auto again = reserve();
  ASSERT_TRUE(again && *again);
  (*again)->unknown();
  store::Commit commit;
  commit.then = {store::KvPut{assigned_key("voucher", "v", 0), encode(Assignment{}), {}}};
  ASSERT_TRUE(store::commit_and_wait(*world.store, std::move(commit)));
  const auto none = reserve();
  ASSERT_TRUE(none);
  EXPECT_EQ(*none, nullptr);
}

TEST_F(VoucherBatch, VOUCHER_10_flash_sale_issues_exactly_the_stock) {
  constexpr int kBuyers = 2000, kStock = 100;
  open_voucher("hot", kStock, kStock + 500);
  for (int i = 0; i < kBuyers; ++i) add_user("u" + std::to_string(i));
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < kBuyers; i += 10) {
    std::vector<std::pair<std::string, std::string>> items;
    for (int j = i; j < i + 10; ++j) items.emplace_back("u" + std::to_string(j), "hot");
    calls.push_back(start("k" + std::to_string(i), batch("r" + std::to_string(i), items)));
  }
  drive();
  int issued = 0, sold_out = 0;
  for (const auto& call : calls) {
    ASSERT_TRUE(call->answer && call->answer->reply);
    const Json reply = Json::parse(Reply::decode(*call->answer->reply)->body);
    for (const auto& result : reply["results"]) {
      issued += result["status"] == "issued";
      sold_out += result.value("reason", "") == "sold_out";
    }
  }
  EXPECT_EQ(issued, kStock);
  EXPECT_EQ(sold_out, kBuyers - kStock);
  const Books books = world.books();
  EXPECT_EQ(books.issued, kStock);
  for (const auto& wrong : books.wrong) ADD_FAILURE() << wrong;
}

TEST_F(VoucherBatch, VOUCHER_6_a_universal_code_goes_to_all_buyers_until_the_stock_is_gone) {
  open_voucher("all", 3, 0);
  const auto given = import_universal_codes(*world.store, read_from_text("voucher,code\nall,WELCOME\n"), "u.csv", world.options);
  ASSERT_TRUE(given) << given.error().to_string();
  std::vector<std::pair<std::string, std::string>> items;
  for (int i = 0; i < 5; ++i) {
    add_user("u" + std::to_string(i));
    items.emplace_back("u" + std::to_string(i), "all");
  }
  const Json reply = send("k", batch("r", items));
  int issued = 0;
  for (const auto& result : reply["results"]) {
    if (result["status"] == "issued") {
      ++issued;
      EXPECT_EQ(result["code"], "WELCOME");
    } else {
      EXPECT_EQ(result["reason"], "sold_out");
    }
  }
  EXPECT_EQ(issued, 3);
  const Bytes first = last_;
  send("other", batch("r", items));
  EXPECT_EQ(last_, first) << "a replay gives nobody a second one";
  EXPECT_EQ(send("k2", batch("r2", {{"u0", "all"}}))["results"][0]["reason"], "sold_out");
  const Books books = world.books();
  EXPECT_EQ(books.issued, 3);
  EXPECT_EQ(books.events, 3u);
  for (const auto& wrong : books.wrong) ADD_FAILURE() << wrong;
}

TEST_F(VoucherBatch, VOUCHER_6_the_quota_of_a_user_holds_for_a_universal_code) {
  open_voucher("all", 10, 0, 2);
  ASSERT_TRUE(import_universal_codes(*world.store, read_from_text("voucher,code\nall,WELCOME\n"), "u.csv", world.options));
  add_user("ann");
  for (int i = 0; i < 3; ++i) {
    const std::string n = std::to_string(i);
    EXPECT_EQ(send("k" + n, batch("r" + n, {{"ann", "all"}}))["results"][0]["status"], i < 2 ? "issued" : "refused");
  }
  EXPECT_TRUE(world.books().balanced());
}

TEST_F(VoucherBatch, VOUCHER_6_codes_reserved_by_a_process_that_died_are_free_again) {
  open_voucher("v1", 10, 3, 10);
  add_user("ann");
  send("k1", batch("r1", {{"ann", "v1"}}));
  CodeAllocator allocator(*world.store);
  { ASSERT_TRUE(finish(allocator.reserve("voucher", "v1"))); }
  CodeAllocator next(*world.store);
  const auto reserve = [&] { return finish(next.reserve("voucher", "v1")); };
  auto first = reserve(), second = reserve(), none = reserve();
  ASSERT_TRUE(first && second);
  EXPECT_EQ((*first)->ordinal(), 1);
  EXPECT_EQ((*second)->ordinal(), 2);
  EXPECT_FALSE(none) << "both may come back";
}

}  // namespace
}  // namespace sluice::voucher
