// Hostile and merely wrong files: every message names file, line, column, what was expected, what
// was found and what to do.
#include <gtest/gtest.h>
#include <gmock/gmock.h>

#include "apps/voucher/csv.hpp"
#include "apps/voucher/importer.hpp"

namespace sluice::voucher {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// One byte at a time, so that no state hides in the buffer.
ByteSource drip(std::string text) {
  return [text = std::move(text), at = std::size_t{0}](char* out, std::size_t) mutable
             -> Result<std::size_t> {
    if (at == text.size()) return 0;
    *out = text[at++];
    return 1;
  };
}

Result<std::vector<std::vector<std::string>>> read(std::string text, CsvLimits limits = {}) {
  CsvReader reader(drip(std::move(text)), "f.csv", {"a", "b"}, limits);
  std::vector<std::vector<std::string>> records;
  std::vector<std::string_view> fields;
  for (;;) {
    SLUICE_ASSIGN(const bool any, reader.next(fields));
    if (!any) return records;
    records.emplace_back(fields.begin(), fields.end());
  }
}
std::string complaint(std::string text, CsvLimits limits = {}) {
  const auto r = read(std::move(text), limits);
  return r ? "no complaint" : std::string(r.error().detail());
}

TEST(VoucherCsv, VOUCHER_6_quotes_commas_and_line_ends_are_read_as_written) {
  const auto r = read("a,b\r\n1,\"x, \"\"y\"\"\nz\"\r\n,\n3,4");
  ASSERT_TRUE(r) << r.error().to_string();
  ASSERT_EQ(r->size(), 3u);
  EXPECT_EQ((*r)[0][1], "x, \"y\"\nz");
  EXPECT_EQ((*r)[1], (std::vector<std::string>{"", ""}));
  EXPECT_EQ((*r)[2], (std::vector<std::string>{"3", "4"}));
  EXPECT_TRUE(read("\xEF\xBB\xBF" "a,b\n"));
}

TEST(VoucherCsv, VOUCHER_6_malformed_records_name_line_and_column) {
  EXPECT_THAT(complaint("a,b\n1,2\n3,x\"y\n"),
              AllOf(HasSubstr("f.csv: line 3, column 2 (b)"), HasSubstr("quote")));
  EXPECT_THAT(complaint("a,b\n1,\"x\"y\n"), HasSubstr("after the closing quote"));
  EXPECT_THAT(complaint("a,b\n1,\"x"), HasSubstr("close the quoted field"));
  EXPECT_THAT(complaint("a,b\n1\n"), AllOf(HasSubstr("line 2"), HasSubstr("2 fields, got 1")));
  EXPECT_THAT(complaint("a,b\n1,2,3\n"), AllOf(HasSubstr("line 2"), HasSubstr("got more")));
  EXPECT_THAT(complaint("a,b\n1,2\r3,4\n"), HasSubstr("LF or CRLF"));
  EXPECT_THAT(complaint(std::string("a,b\n1,\0\n", 8)), HasSubstr("NUL"));
  EXPECT_THAT(complaint("a,c\n"), HasSubstr("line 1: expected the columns a,b, got \"a,c\""));
  EXPECT_THAT(complaint("a\n1\n"), HasSubstr("line 1: expected the columns a,b, got \"a\""));
  EXPECT_THAT(complaint("a,b,c\n"), HasSubstr("line 1: expected the columns a,b, got \"a,b,c\""));
  EXPECT_THAT(complaint(""), HasSubstr("empty file"));
  EXPECT_THAT(complaint("\n"), HasSubstr("line 1"));
}

TEST(VoucherCsv, VOUCHER_6_lines_inside_quotes_are_counted) {
  EXPECT_THAT(complaint("a,b\n\"1\n1\",2\nx\n"), HasSubstr("line 4"));
}

TEST(VoucherCsv, VOUCHER_6_a_quote_never_closed_does_not_swallow_the_file) {
  EXPECT_THAT(complaint("a,b\n\"" + std::string(1 << 20, 'x'), {.max_field = 100}),
              AllOf(HasSubstr("at most 100 bytes"), HasSubstr("never closed")));
}

// Whoever asks again must not be told that a broken file simply ended, or be given what follows.
TEST(VoucherCsv, VOUCHER_6_a_failed_reader_stays_failed) {
  for (const char* text : {"a,b\n1,\"x", "a,b\n1,2,3\n4,5\n", "a,b\n1\n4,5\n", "a,c\n1,2\n", ""}) {
    CsvReader reader(drip(text), "f.csv", {"a", "b"});
    std::vector<std::string_view> fields;
    const auto first = reader.next(fields);
    ASSERT_FALSE(first) << text;
    for (int i = 0; i < 2; ++i) {
      const auto again = reader.next(fields);
      ASSERT_FALSE(again) << text;
      EXPECT_EQ(again.error().detail(), first.error().detail());
      EXPECT_TRUE(fields.empty());
    }
  }
}

TEST(VoucherCsv, VOUCHER_6_a_source_that_failed_is_not_read_again) {
  int reads = 0;
  CsvReader reader(
      [&reads](char*, std::size_t) -> Result<std::size_t> {
        if (++reads == 1) return fail(FailureKind::unavailable, "disk", "the disk is gone");
        return 0;
      },
      "f.csv", {"a", "b"});
  std::vector<std::string_view> fields;
  ASSERT_FALSE(reader.next(fields));
  const auto again = reader.next(fields);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), "disk");
  EXPECT_EQ(reads, 1);
}

TEST(VoucherCsv, VOUCHER_6_any_bytes_at_all_end_in_records_or_a_failure) {
  std::uint64_t state = 7;
  constexpr std::string_view kBytes = "\",\r\na\0\xFF;";
  for (int round = 0; round < 2000; ++round) {
    std::string text = "a,b\n";
    for (int i = 0; i < 40; ++i) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      text.push_back(kBytes[(state >> 33) % kBytes.size()]);
    }
    const auto r = read(text);
    if (!r) EXPECT_EQ(r.error().code(), "malformed_csv");
  }
}

}  // namespace
}  // namespace sluice::voucher
