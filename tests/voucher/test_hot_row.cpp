// What a hot voucher costs on a store that groups commits.
#include "apps/voucher/books.hpp"
#include "support/temp_folder.hpp"
#include "voucher/services.hpp"

namespace sluice::voucher {
namespace {

TEST(VoucherHotRow, VOUCHER_7_the_row_is_written_once_for_those_who_wait_together) {
  constexpr int kBuyers = 400, kStock = 350;
  testing_support::TempFolder folder;
  Service shop{make_app(), false, "", [&](server::Config& config) {
                 config.store_kind = "sqlite";
                 config.sqlite.path = folder.file("shop.db");
               }};
  store::Commit fill;
  const Voucher v = open_for_all("hot", kStock);
  fill.then = {store::KvPut{voucher_key("voucher", v.id), encode(v), {}}, store::KvPut{stock_key("voucher", v.id), "", v.stock},
               store::KvPut{budget_key("voucher", v.id), "", v.budget_minor}, store::KvPut{pool_key("voucher", v.id), "", kBuyers}};
  Json items = Json::array();
  for (int i = 0; i < kBuyers; ++i) {
    const std::string user = "u" + std::to_string(i);
    fill.then.push_back(store::KvPut{user_key("voucher", user), encode(User{user, "SG"}), {}});
    fill.then.push_back(store::KvPut{code_key("voucher", v.id, i), "CODE-" + std::to_string(i), {}});
    items.push_back({{"user", user}, {"voucher", v.id}});
  }
  ASSERT_TRUE(store::commit_and_wait(shop.store(), std::move(fill)));
  const auto stock = [&] {
    store::GetRows rows;
    rows.keys = {stock_key("voucher", v.id)};
    return *(*store::ask_now(shop.store(), rows))[0];
  };
  const auto before = shop.store().stats().groups;
  const Json reply = shop.ask(kBatch, {{"request_id", "r"}, {"region", "SG"}, {"items", items}}, "Idempotency-Key: r\r\n");
  int issued = 0, sold_out = 0;
  for (const auto& one : reply["results"]) {
    issued += one["status"] == "issued";
    sold_out += one.value("reason", "") == "sold_out";
  }
  EXPECT_EQ(issued, kStock) << reply.dump().substr(0, 300);
  EXPECT_EQ(sold_out, kBuyers - kStock);
  EXPECT_EQ(stock().number, 0);
  // The first may go alone; who comes while the disk is busy goes together: some ten groups, more on a busy machine.
  EXPECT_LE(shop.store().stats().groups - before, kBuyers / 2u) << "a durable write for each of them";
  const auto books = audit_books(shop.store(), "voucher");
  ASSERT_TRUE(books);
  for (const auto& wrong : books->wrong) ADD_FAILURE() << wrong;
}

}  // namespace
}  // namespace sluice::voucher
