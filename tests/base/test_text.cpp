#include "sluice/base/text.hpp"

#include <gtest/gtest.h>

#include <string>

namespace sluice {
namespace {

TEST(Text, a_cut_ends_between_two_characters) {
  const std::string text = "a\u00e9\u20ac\U0001F600z";  // 1, 2, 3, 4 and 1 bytes
  const std::size_t ends[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11, 11};
  for (std::size_t limit = 0; limit < std::size(ends); ++limit) {
    EXPECT_EQ(beginning_of(text, limit), text.substr(0, ends[limit])) << limit;
    EXPECT_EQ(utf8_until(beginning_of(text, limit)), ends[limit]);
  }
  EXPECT_EQ(beginning_of("\x80\x80\x80\x80", 2), "") << "what is no text ends too";
}

TEST(Text, what_is_no_utf8_is_found_where_it_begins) {
  EXPECT_EQ(utf8_until("plain"), 5u);
  EXPECT_EQ(utf8_until("na\xEFve"), 2u) << "Latin-1";
  for (const char* bad : {"\x80", "\xC3", "\xC0\xAF", "\xE2\x82", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80", "\xF4\x90\x80\x80",
                          "\xF5\x80\x80\x80", "\xFF", "\xC3("})
    EXPECT_EQ(utf8_until(std::string("ok") + bad), 2u) << bad;
  for (const char* good : {"\xC2\x80", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"})
    EXPECT_EQ(utf8_until(good), std::string(good).size()) << good;
}

}  // namespace
}  // namespace sluice
