// The generator is deterministic, and an import that is cut off at any batch ends, when repeated,
// with the same rows as one that never was.
#include <gmock/gmock.h>

#include "apps/voucher/distribution.hpp"
#include "sluice/base/runtime.hpp"
#include "tests/voucher/world.hpp"

namespace sluice::voucher {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr GeneratorOptions kSmall{.seed = 9, .vouchers = 20, .codes_per_voucher = 15, .users = 30};

constexpr std::string_view kHead =
    "id,name,region,from,to,value_minor,currency,stock,user_quota,day_quota,budget_minor\n";

TEST(VoucherGenerator, VOUCHER_6_same_seed_same_bytes_other_seed_other_bytes) {
  GeneratorOptions other = kSmall;
  other.seed = 10;
  for (const auto what : {&generate_vouchers, &generate_codes, &generate_users}) {
    EXPECT_EQ(generated(what, kSmall), generated(what, kSmall));
    EXPECT_NE(generated(what, kSmall), generated(what, other));
  }
}

// Pinned: files made by one release must be those made by the next.
TEST(VoucherGenerator, VOUCHER_6_bytes_are_those_of_earlier_releases) {
  const std::string all = generated(&generate_vouchers, kSmall) +
                          generated(&generate_codes, kSmall) + generated(&generate_users, kSmall);
  EXPECT_EQ(to_hex(sha256(all).view()).substr(0, 16), "f0ecc70791526918");
}

// Else nothing but codes would end a sale of hot ones, and "issued is at most the stock" could not fail.
TEST(VoucherGenerator, VOUCHER_4_hot_ones_may_have_less_stock_than_codes_and_money) {
  GeneratorOptions scarce = kSmall;
  scarce.hot = 2;
  scarce.hot_stock = 5;
  const std::string vouchers = generated(&generate_vouchers, scarce);
  const auto line = vouchers.find('\n') + 1;
  EXPECT_THAT(vouchers.substr(line, vouchers.find('\n', line) - line), HasSubstr(",5,2,1000000,"))
      << "stock, of one user, of one day";
  World w;
  ASSERT_TRUE(w.catalogue(vouchers));
  EXPECT_EQ(w.books().sold_out, 0u);
  EXPECT_TRUE(w.books().balanced());
}

TEST(VoucherGenerator, VOUCHER_6_real_size_has_only_distinct_codes_and_imports_whole) {
  World w;
  w.options.batch = 5000;
  ASSERT_TRUE(w.catalogue(generated(&generate_vouchers, {})));
  const auto codes = w.codes(generated(&generate_codes, {}));
  ASSERT_TRUE(codes) << codes.error().to_string();
  EXPECT_EQ(codes->imported, 100'000u);
  EXPECT_EQ(codes->recognised, 0u);
}

TEST(VoucherImport, VOUCHER_6_cut_after_any_batch_and_repeated_gives_the_same_rows) {
  const std::string vouchers = generated(&generate_vouchers, kSmall);
  const std::string codes = generated(&generate_codes, kSmall);
  World whole;
  ASSERT_TRUE(whole.catalogue(vouchers));
  ASSERT_TRUE(whole.codes(codes));
  for (int cut = 1; cut <= 10; ++cut) {
    World w;
    w.options.batch = 30;
    ASSERT_TRUE(w.catalogue(vouchers));
    int batches = 0;
    w.options.progress = [&](const ImportProgress&) { return ++batches != cut; };
    const auto first = w.codes(codes);
    if (!first) EXPECT_EQ(first.error().code(), "import_cut");
    w.options.progress = nullptr;
    const auto again = w.codes(codes);
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_EQ(again->rows, 300u);
    EXPECT_EQ(again->recognised, std::min(300, cut * 30));
    for (int v = 0; v < 20; ++v)
      for (int n = 0; n < 15; ++n) {
        const auto key = code_key("voucher", generated_voucher_id(v), n);
        EXPECT_EQ(w.row(key)->value, whole.row(key)->value);
      }
  }
}

TEST(VoucherImport, VOUCHER_6_more_codes_extend_the_pool) {
  World w;
  ASSERT_TRUE(w.catalogue(generated(&generate_vouchers, kSmall)));
  ASSERT_TRUE(w.codes("voucher,code\nV000001,AAAA\nV000002,BBBB\nV000001,CCCC\nV000001,AAAA\n"));
  ASSERT_TRUE(w.codes("voucher,code\nV000001,DDDD\n"));
  EXPECT_EQ(w.row(pool_key("voucher", "V000001"))->number, 3);
  EXPECT_EQ(w.row(code_key("voucher", "V000001", 2))->value, "DDDD");
}

TEST(VoucherImport, VOUCHER_6_wrong_rows_are_refused_with_file_line_and_column) {
  World w;
  const auto complaint = [&](std::string line) {
    const auto r = w.catalogue(std::string(kHead) + line);
    return r ? "no complaint" : std::string(r.error().detail());
  };
  const std::string from = "2026-01-01T00:00:00Z", to = "2026-02-01T00:00:00Z";
  EXPECT_THAT(complaint("V 1,N,SG," + from + "," + to + ",1,SGD,1,1,1,1\n"),
              AllOf(HasSubstr("vouchers.csv: line 2, column 1 (id)"), HasSubstr("got \"V 1\"")));
  EXPECT_THAT(complaint("V1,N,sg," + from + "," + to + ",1,SGD,1,1,1,1\n"), HasSubstr("(region)"));
  EXPECT_THAT(complaint("V1,N,SG,2026-02-30T00:00:00Z," + to + ",1,SGD,1,1,1,1\n"),
              HasSubstr("2026-01-31T08:00:00Z"));
  EXPECT_THAT(complaint("V1,N,SG," + to + "," + from + ",1,SGD,1,1,1,1\n"),
              HasSubstr("after the window's begin"));
  EXPECT_THAT(complaint("V1,N,SG," + from + "," + to + ",1.5,SGD,1,1,1,1\n"),
              AllOf(HasSubstr("(value_minor)"), HasSubstr("got \"1.5\"")));
  EXPECT_THAT(complaint("V1,N,SG," + from + "," + to + ",1,SGD,-1,1,1,1\n"), HasSubstr("(stock)"));
  EXPECT_THAT(complaint("V1,N,SG," + from + "," + to + ",1,SGD,99999999999999999999,1,1,1\n"),
              HasSubstr("(stock)"));
  EXPECT_EQ(w.books().vouchers, 0u);
}

TEST(VoucherImport, VOUCHER_6_what_is_no_utf8_is_refused_with_its_place) {
  World w;
  const auto r = w.catalogue(std::string(kHead) + "V1,Caf\u00e9,SG,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,1,SGD,1,1,1,1\n"
                                                  "V2,Caf\xE9,SG,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,1,SGD,1,1,1,1\n");
  ASSERT_FALSE(r);
  EXPECT_THAT(std::string(r.error().detail()),
              AllOf(HasSubstr("vouchers.csv: line 3, column 2 (name)"), HasSubstr("UTF-8"), HasSubstr("\\xe9"), HasSubstr("save the file as UTF-8")));
  EXPECT_EQ(w.books().vouchers, 0u);
  const auto quoted = w.catalogue(std::string(kHead) + "V1,\"Caf\xE9\",SG,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,1,SGD,1,1,1,1\n");
  ASSERT_FALSE(quoted);
  EXPECT_THAT(std::string(quoted.error().detail()), HasSubstr("line 2, column 2 (name)"));
}

TEST(VoucherImport, VOUCHER_6_a_time_is_as_written_or_refused) {
  for (const char* bad : {"2026-13-01T00:00:00Z", "2026-12-45T00:00:00Z", "2026-01-01T25:00:00Z", "2026-01-01T23:61:00Z", "2026-01-01T23:59:60Z",
                          "2026-13-45", "25:61", "2026- 1- 1T 0: 0: 0Z", "2026-+1-01T00:00:00Z", "-026-01-01T00:00:00Z", "2026-01-01 00:00:00Z",
                          "2026-01-01T00:00:00z", "2026-02-29T00:00:00Z"}) {
    World w;
    const auto r = w.catalogue(std::string(kHead) + "V1,N,SG," + bad + ",2126-02-01T00:00:00Z,1,SGD,1,1,1,1\n");
    ASSERT_FALSE(r) << bad;
    EXPECT_THAT(std::string(r.error().detail()), AllOf(HasSubstr("line 2, column 4 (from)"), HasSubstr("2026-01-31T08:00:00Z"), HasSubstr(bad)));
  }
}

TEST(VoucherImport, VOUCHER_6_the_file_of_a_voucher_that_was_restocked_is_imported_again_and_changes_nothing) {
  World w;
  const std::string file = std::string(kHead) + "V1,N,SG,2026-01-01T00:00:00Z,2126-02-01T00:00:00Z,100,SGD,5,1,9,1000\n";
  ASSERT_TRUE(w.catalogue(file));
  IdSource ids(w.clock, 1);
  Distribution distribution(*w.store, w.clock, ids);
  RealClock real;
  LaneThread lane(real);
  auto exchange = std::make_shared<flow::Exchange>(ids.exchange(), Namespace("voucher"), R"({"voucher":"V1","stock":7,"budget_minor":700})");
  const auto restocked = block_on(lane, distribution.restock().run(exchange));
  ASSERT_EQ(restocked.kind, flow::OutcomeKind::committed);
  const auto again = w.catalogue(file);
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(again->imported, 0u);
  EXPECT_EQ(again->recognised, 1u);
  EXPECT_EQ(w.row(stock_key("voucher", "V1"))->number, 12) << "what was added stays";
  EXPECT_EQ(w.row(budget_key("voucher", "V1"))->number, 1700);
  std::string other = file;
  other.replace(other.find(",5,1,9,"), 7, ",12,1,9,");
  const auto raised = w.catalogue(other);
  ASSERT_FALSE(raised) << "a file is no restock";
  EXPECT_THAT(std::string(raised.error().detail()), HasSubstr("voucher.catalogue.restock"));
}

TEST(VoucherImport, VOUCHER_6_a_code_of_two_vouchers_and_a_changed_voucher_are_refused) {
  World w;
  ASSERT_TRUE(w.catalogue(generated(&generate_vouchers, kSmall)));
  const auto twice = w.codes("voucher,code\nV000001,AAAA\nV000002,AAAA\n");
  ASSERT_FALSE(twice);
  EXPECT_THAT(std::string(twice.error().detail()), AllOf(HasSubstr("line 3"), HasSubstr("AAAA")));
  const auto unknown = w.codes("voucher,code\nNONE,BBBB\n");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code(), "unknown_voucher");
  GeneratorOptions other = kSmall;
  other.seed = 10;
  const auto changed = w.catalogue(generated(&generate_vouchers, other));
  ASSERT_FALSE(changed);
  EXPECT_EQ(changed.error().code(), "conflicting_row");
}

TEST(VoucherImport, VOUCHER_6_a_universal_code_is_one_per_voucher_and_never_beside_codes_of_its_own) {
  World w;
  ASSERT_TRUE(w.catalogue(generated(&generate_vouchers, kSmall)));
  const auto universal = [&](std::string lines) {
    return import_universal_codes(*w.store, read_from_text("voucher,code\n" + std::move(lines)), "universal.csv", w.options);
  };
  ASSERT_TRUE(w.codes("voucher,code\nV000002,BBBB\n"));
  const auto first = universal("V000001,WELCOME\nV000001,WELCOME\n");
  ASSERT_TRUE(first) << first.error().to_string();
  EXPECT_EQ(first->imported, 1u);
  EXPECT_EQ(w.row(pool_key("voucher", "V000001"))->value, "WELCOME");
  const auto again = universal("V000001,WELCOME\n");
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(again->recognised, 1u);
  const auto refused = [&](const auto& result, std::string_view where) {
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code(), "conflicting_row");
    EXPECT_THAT(std::string(result.error().detail()), HasSubstr(std::string(where)));
  };
  refused(universal("V000001,OTHER\n"), "universal.csv: line 2: voucher \"V000001\"");
  refused(universal("V000003,ONE1\nV000003,TWO2\n"), "line 3");
  refused(universal("V000002,CCCC\n"), "V000002");
  refused(universal("V000002,BBBB\n"), "V000002");
  refused(universal("V000003,WELCOME\n"), "WELCOME");
  refused(w.codes("voucher,code\nV000001,DDDD\n"), "a universal code already");
  refused(w.codes("voucher,code\nV000001,WELCOME\n"), "a universal code already");
  EXPECT_EQ(w.row(pool_key("voucher", "V000001"))->value, "WELCOME");
  EXPECT_EQ(w.row(pool_key("voucher", "V000002"))->number, 1);
  EXPECT_TRUE(w.books().balanced());
}

TEST(VoucherBooks, VOUCHER_4_cooked_books_are_noticed) {
  World w;
  ASSERT_TRUE(w.catalogue(generated(&generate_vouchers, kSmall)));
  ASSERT_TRUE(w.codes(generated(&generate_codes, kSmall)));
  EXPECT_TRUE(w.books().balanced());
  store::Commit commit;
  commit.then.push_back(store::KvAdd{stock_key("voucher", "V000003"), -1});
  ASSERT_TRUE(store::commit_and_wait(*w.store, std::move(commit)));
  const Books books = w.books();
  ASSERT_EQ(books.wrong.size(), 1u);
  EXPECT_THAT(books.wrong[0], HasSubstr("V000003"));
}

}  // namespace
}  // namespace sluice::voucher
