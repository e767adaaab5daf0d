// Distribution services with stores of their own on one code service.
#include <filesystem>
#include <set>

#include "support/temp_folder.hpp"
#include "voucher/services_fixture.hpp"

namespace sluice::voucher {
namespace {

class VoucherStoresApart : public testing::Test {
 protected:
  Service codes{make_code_service({.lease = milliseconds(100)}), true};
  int asked = 0;

  void SetUp() override {
    store::Commit there;
    there.then.push_back(store::KvPut{pool_key("voucher", "ten"), "", 10});
    for (std::int64_t n = 0; n < 10; ++n)
      there.then.push_back(store::KvPut{code_key("voucher", "ten", n), "CODE-" + std::to_string(n), {}});
    ASSERT_TRUE(store::commit_and_wait(codes.store(), std::move(there)));
  }
  VoucherOptions options(std::int64_t segment_codes) {
    VoucherOptions options = options_for(codes.server->grpc_port(), codes.token);
    options.downstream.segment_codes = segment_codes;
    options.downstream.owner = "shop";
    return options;
  }
  static void stock(Service& shop) {
    const Voucher v = open_for_all("ten", 100);
    store::Commit fill;
    fill.then = {store::KvPut{voucher_key("voucher", v.id), encode(v), {}}, store::KvPut{stock_key("voucher", v.id), "", v.stock},
                 store::KvPut{budget_key("voucher", v.id), "", v.budget_minor},
                 store::KvPut{user_key("voucher", "ann"), encode(User{"ann", "SG"}), {}}};
    ASSERT_TRUE(store::commit_and_wait(shop.store(), std::move(fill)));
  }
  /// Its code, or why there is none.
  std::string buy(Service& shop) {
    const std::string id = "r" + std::to_string(++asked);
    const Json answer = shop.ask(kBatch, {{"request_id", id}, {"region", "SG"}, {"items", {{{"user", "ann"}, {"voucher", "ten"}}}}},
                                 "Idempotency-Key: " + id + "\r\n");
    if (!answer.contains("results")) return answer.dump();
    const Json& one = answer["results"][0];
    return one.value("code", one.value("reason", one.dump()));
  }
  void until_overdue() {
    Json overdue = Json::array();
    for (int i = 0; i < 500 && overdue.empty(); ++i) {  // the lease is a tenth of a second
      overdue = codes.ask("voucher.code.segments.list", {{"overdue", true}})["segments"];
      poll(nullptr, 0, 10);
    }
    ASSERT_FALSE(overdue.empty());
  }
};

TEST_F(VoucherStoresApart, VOUCHER_6_a_lease_that_ran_out_gives_no_code_to_another_store) {
  Service one{make_app(options(10)), false}, other{make_app(options(10)), false};
  stock(one);
  stock(other);
  EXPECT_EQ(buy(one), "CODE-0") << "and has leased all ten";
  until_overdue();
  EXPECT_EQ(buy(other), "codes_leased");
  EXPECT_EQ(buy(one), "CODE-1") << "its own again";
  until_overdue();
  const Json held = codes.ask("voucher.code.segments.list", Json::object())["segments"];
  ASSERT_EQ(held.size(), 1u) << held.dump();
  const Json shown = one.ask("voucher.downstream.show", Json::object());
  EXPECT_EQ(held[0]["store"], shown["store"]) << shown.dump();
  EXPECT_EQ(held[0]["owner"], "shop");
  const Json freed = codes.ask("voucher.code.segments.free", {{"store", shown["store"]}, {"withdraw", true}}, "Idempotency-Key: f\r\n");
  EXPECT_EQ(freed.value("codes", 0), 10) << freed.dump();
  std::string end;
  for (int i = 0; i < 500 && end != "no_code"; ++i) {  // a second, until it asks again
    end = buy(other);
    poll(nullptr, 0, 10);
  }
  EXPECT_EQ(end, "no_code");
}

TEST_F(VoucherStoresApart, VOUCHER_6_a_copy_of_a_database_gives_out_none_of_the_codes_of_its_original) {
  const testing_support::TempFolder folder;
  const auto on = [&](const char* file) {
    return [path = folder.file(file)](server::Config& config) {
      config.store_kind = "sqlite";
      config.sqlite.path = path;
    };
  };
  std::string token;
  {
    Service shop{make_app(options(5)), false, "", on("shop.db")};
    token = shop.token;
    stock(shop);
    EXPECT_EQ(buy(shop), "CODE-0");
  }
  std::filesystem::copy_file(folder.file("shop.db"), folder.file("copy.db"));
  Service shop{make_app(options(5)), false, "", on("shop.db")}, copy{make_app(options(5)), false, "", on("copy.db")};
  shop.token = copy.token = token;
  std::set<std::string> given{"CODE-0"};
  for (int i = 0; i < 3; ++i)
    for (Service* one : {&shop, &copy}) {
      const std::string code = buy(*one);
      EXPECT_TRUE(code.starts_with("CODE-")) << code;
      EXPECT_TRUE(given.insert(code).second) << code << " went out twice";
    }
}

}  // namespace
}  // namespace sluice::voucher
