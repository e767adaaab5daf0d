#include <gtest/gtest.h>

#include <set>

#include "sluice/base/failure.hpp"
#include "sluice/base/namespace.hpp"
#include "sluice/base/reply.hpp"
#include "sluice/base/time.hpp"

namespace sluice {
namespace {

TEST(FailureTable, EveryKindHasOneRowWithItsOwnNameAndMeaning) {
  std::set<std::string_view> names, meanings;
  std::size_t number = 0;
  for (const FailureTraits& row : failure_table()) {
    EXPECT_EQ(static_cast<std::size_t>(row.kind), number++);
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    EXPECT_TRUE(meanings.insert(row.meaning).second) << row.name;
    EXPECT_TRUE(row.meaning.ends_with('.')) << row.name;
    EXPECT_EQ(failure_kind_from_name(row.name), row.kind);
    EXPECT_EQ(&traits(row.kind), &row);
  }
  EXPECT_EQ(number, 25u);
  EXPECT_FALSE(failure_kind_from_name(""));
  EXPECT_FALSE(failure_kind_from_name("Internal"));
  EXPECT_EQ(traits(static_cast<FailureKind>(200)).kind, FailureKind::internal);
}

TEST(FailureTable, EveryRowFitsItsWires) {
  for (const FailureTraits& row : failure_table()) {
    EXPECT_GE(row.grpc_code, 0);
    EXPECT_LE(row.grpc_code, 16);
    EXPECT_EQ(row.iso8583.size(), 2u);
    const bool success = row.kind == FailureKind::none;
    EXPECT_EQ(row.grpc_code == 0, success) << row.name;
    EXPECT_EQ(row.iso8583 == "00", success) << row.name;
    if (row.kind == FailureKind::in_doubt)
      EXPECT_EQ(row.http_status, 202);
    else
      EXPECT_EQ(row.http_status >= 400, !success) << row.name;
  }
}

TEST(FailureTable, UnsettledOutcomesAreNeverStoredAsRepliesOrRetriedBlindly) {
  for (const FailureKind kind :
       {FailureKind::unknown_outcome, FailureKind::in_doubt, FailureKind::pending}) {
    EXPECT_EQ(traits(kind).remember, Remember::status);
    EXPECT_FALSE(traits(kind).retryable);
  }
  EXPECT_EQ(traits(FailureKind::version_conflict).remember, Remember::rerun);
}

TEST(FailureValue, CopiesWithOneThingAddedKeepTheRest) {
  const Failure plain(FailureKind::overloaded);
  EXPECT_EQ(plain.code(), "overloaded");
  EXPECT_EQ(plain.detail(), "");
  EXPECT_EQ(plain.to_string(), "overloaded");
  const Failure full = Failure(FailureKind::overloaded, "queue_full", "writer queue: 10 of 10")
                           .with_retry_after(milliseconds(250))
                           .with("queue", "writer")
                           .at("commit");
  EXPECT_EQ(full.to_string(), "overloaded/queue_full: commit: writer queue: 10 of 10");
  EXPECT_EQ(full.retry_after(), milliseconds(250));
  ASSERT_EQ(full.details().size(), 1u);
  EXPECT_EQ(full.details()[0].second, "writer");
  EXPECT_EQ(full, Failure(full));
  EXPECT_NE(full, plain);
}

TEST(FailureValue, TryReturnsEarlyAndAssignMovesTheValueOut) {
  const auto half = [](int n) -> Result<int> {
    if (n % 2 != 0) return fail(FailureKind::invalid_argument, "odd", "n is odd");
    return n / 2;
  };
  const auto quarter = [&](int n) -> Result<int> {
    SLUICE_ASSIGN(const int halved, half(n));
    SLUICE_TRY(half(halved));
    return halved / 2;
  };
  EXPECT_EQ(*quarter(8), 2);
  EXPECT_EQ(quarter(6).error().code(), "odd");
  EXPECT_EQ(quarter(7).error().code(), "odd");
}

TEST(NamespaceText, RoundTripsAndRefusesWhatIsNoAppName) {
  EXPECT_EQ(Namespace::parse("shop")->text(), "shop");
  const auto shadow = Namespace::parse("shop~shadow");
  ASSERT_TRUE(shadow);
  EXPECT_TRUE(shadow->shadow());
  EXPECT_EQ(shadow->app(), "shop");
  EXPECT_FALSE(*shadow == Namespace("shop"));
  for (const char* bad : {"", "~shadow", "Shop", "a b", "a~live", "a~shadow~shadow", "a/b", "a\n"})
    EXPECT_FALSE(Namespace::parse(bad)) << bad;
  EXPECT_TRUE(Namespace::parse(std::string(64, 'a')));
  EXPECT_FALSE(Namespace::parse(std::string(65, 'a')));
}

Reply sample_reply() {
  Reply reply;
  reply.kind = FailureKind::rejected;
  reply.code = "no_stock";
  reply.detail = std::string("nothing left\0 of it", 19);
  reply.headers = {{"x-a", ""}, {"x-b", "2"}};
  reply.body = std::string(300, '\xff');
  return reply;
}

TEST(ReplyCodec, RoundTripsAndIsTheSameBytesEachTime) {
  for (const Reply& reply : {Reply{}, Reply::ok("{}"), sample_reply()}) {
    const Bytes bytes = reply.encode();
    const auto read = Reply::decode(bytes);
    ASSERT_TRUE(read);
    EXPECT_EQ(*read, reply);
    EXPECT_EQ(read->encode(), bytes);
  }
}

TEST(ReplyCodec, EveryTruncationAndExtensionIsCorrupt) {
  const Bytes bytes = sample_reply().encode();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const auto read = Reply::decode(ByteView(bytes).substr(0, size));
    ASSERT_FALSE(read) << size;
    EXPECT_EQ(read.error().kind(), FailureKind::corrupt);
  }
  EXPECT_FALSE(Reply::decode(bytes + "x"));
}

TEST(ReplyCodec, AnyFlippedBitIsRefusedOrStillDecodesToWhatEncodesBack) {
  const Bytes bytes = sample_reply().encode();
  for (std::size_t i = 0; i < bytes.size() * 8; ++i) {
    Bytes damaged = bytes;
    damaged[i / 8] = static_cast<char>(damaged[i / 8] ^ (1 << (i % 8)));
    if (const auto read = Reply::decode(damaged)) EXPECT_EQ(read->encode(), damaged) << i;
  }
}

TEST(ReplyCodec, AFailureSurvivesWithItsDetails) {
  const Failure failure =
      Failure(FailureKind::precondition_failed, "sold_out", "0 left").with("product", "p1");
  const auto read = Reply::decode(Reply::from(failure).encode());
  ASSERT_TRUE(read);
  EXPECT_EQ(read->to_failure(), failure);
}

}  // namespace
}  // namespace sluice
