// The wait for a read connection has an end.
#include "store/sqlite/reader_pool.hpp"
#include "store/store_fixture.hpp"

namespace sluice::store {
namespace {

TEST(ReaderPoolTest, CORE_2_when_every_reader_stays_busy_the_wait_ends_with_overloaded) {
  // The one connection is still being opened while somebody else asks.
  ReaderPool* pool = nullptr;
  std::optional<Result<Answer>> second;
  ReaderPool one({.readers = 1, .wait = milliseconds(1)}, [&]() -> Result<std::unique_ptr<SqliteReader>> {
    second = pool->answer(ListOpen{}, {});
    return fail(FailureKind::corrupt, "no_such_file", "gone");
  });
  pool = &one;
  const auto first = one.answer(ListOpen{}, {});
  ASSERT_TRUE(second);
  ASSERT_FALSE(*second);
  EXPECT_EQ(second->error().kind(), FailureKind::overloaded);
  EXPECT_EQ(second->error().code(), "readers_busy");
  EXPECT_EQ(second->error().retry_after(), seconds(1));
  EXPECT_NE(second->error().detail().find("all 1 read connections"), std::string_view::npos);
  EXPECT_NE(second->error().detail().find("raise max_readers"), std::string_view::npos);
  // A connection that could not be opened is nobody's verdict, and its place is free again.
  ASSERT_FALSE(first);
  EXPECT_EQ(first.error().kind(), FailureKind::unavailable);
  second.reset();
  const auto third = one.answer(ListOpen{}, {});
  EXPECT_FALSE(third);
  EXPECT_TRUE(second) << "opened anew";
}

}  // namespace
}  // namespace sluice::store
