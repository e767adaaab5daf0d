#include <gtest/gtest.h>

#include "sluice/base/ids.hpp"

namespace sluice {
namespace {

TEST(Ids, TextFormRoundTripsAndSortsLikeTheNumber) {
  const std::uint64_t small = 12345, large = 0x7FFF'FFFF'FFFF'FFFF;
  EXPECT_EQ(id_from_text(id_to_text(small)), small);
  EXPECT_EQ(id_from_text(id_to_text(large)), large);
  EXPECT_LT(id_to_text(small), id_to_text(large));
}

TEST(Ids, TextOfTheWrongLengthOrAlphabetIsRefused) {
  EXPECT_FALSE(id_from_text("123"));
  EXPECT_FALSE(id_from_text("000000000000!"));
  EXPECT_FALSE(id_from_text("zzzzzzzzzzzzz"));
}

}  // namespace
}  // namespace sluice
