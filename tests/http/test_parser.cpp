// The reader of requests alone, with every cut the network can make.
#include <gtest/gtest.h>

#include "transport/http/request.hpp"

namespace sluice::transport {
namespace {

// The request read from `bytes` that come in three pieces.
std::optional<HttpRequest> read_cut(std::string_view bytes, std::size_t cut, std::size_t again) {
  RequestParser parser({.header_bytes = 2048, .body_bytes = 1024});
  HttpRequest request;
  parser.reset(request);
  std::size_t begin = 0;
  for (const std::size_t end : {cut, again, bytes.size()}) {
    const auto step = parser.feed(bytes.substr(begin, end - begin));
    if (step.failure) return std::nullopt;
    begin += step.consumed;
    if (step.done) return begin == bytes.size() ? std::optional(request) : std::nullopt;
  }
  return std::nullopt;
}

TEST(RequestParser, CONSOLE_9_a_request_cut_anywhere_is_the_same_request) {
  for (const auto& [body, expected] :
       {std::pair{"0\r\n\r\n", ""}, std::pair{"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", "hello"},
        std::pair{"0\r\nTrailer: t\r\n\r\n", ""}, std::pair{"1\r\n{\r\n00\r\n\r\n", "{"}}) {
    const std::string bytes =
        std::string("POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n") + body;
    // Two cuts: the reader remembers what it saw of a piece that was too short.
    for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
      for (std::size_t again = cut; again <= bytes.size(); ++again) {
        const auto request = read_cut(bytes, cut, again);
        ASSERT_TRUE(request) << body << " cut at " << cut << " and " << again;
        EXPECT_EQ(request->target, "/x");
        EXPECT_EQ(request->body, expected);
      }
    }
  }
}

TEST(RequestParser, G6_a_chunks_line_and_what_follows_the_body_are_bounded_like_a_header) {
  for (const std::string begin : {"1;", "0", "1\r\n{\r\n", "0\r\nX: ", "0\r\nX: y\r\n"}) {
    for (const char filler : {'0', 'a'}) {
      if (begin == "1\r\n{\r\n" && filler == 'a') continue;  // a size that is too large, sooner
      RequestParser parser({.header_bytes = 2048, .body_bytes = 1024});
      HttpRequest request;
      parser.reset(request);
      std::string kept = "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + begin;
      std::optional<Failure> refused;
      for (int i = 0; i < 40 && !refused; ++i) {
        const auto step = parser.feed(kept);
        kept.erase(0, step.consumed);
        refused = step.failure;
        ASSERT_LE(kept.size(), 2048u + 100u) << "bytes a connection must keep, after " << begin;
        kept.append(100, filler);
      }
      EXPECT_TRUE(refused) << begin << filler;
    }
  }
}

}  // namespace
}  // namespace sluice::transport
