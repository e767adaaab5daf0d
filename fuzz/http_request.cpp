#include <algorithm>
#include <vector>

#include "fuzz/target.hpp"
#include "transport/http/request.hpp"

using namespace sluice;
using transport::HttpRequest;
using transport::RequestParser;

namespace {

constexpr const char* kNone = "no request, or not yet";

// What a connection makes of these bytes when they come in pieces of `piece`.
std::vector<std::string> read(std::string_view bytes, std::size_t piece) {
  constexpr RequestParser::Limits kLimits{.header_bytes = 2048, .body_bytes = 1024};
  std::vector<std::string> seen;
  RequestParser parser(kLimits);
  HttpRequest request;
  parser.reset(request);
  std::size_t begin = 0, end = 0;
  while (end < bytes.size()) {
    end = std::min(bytes.size(), end + piece);
    while (begin < end) {
      const auto step = parser.feed(bytes.substr(begin, end - begin));
      fuzz::require(step.consumed <= end - begin, "more consumed than was there");
      begin += step.consumed;
      fuzz::require(request.body.size() <= kLimits.body_bytes, "a body past its bound");
      if (step.failure) {
        seen.push_back(kNone);
        return seen;
      }
      if (step.done) {
        seen.push_back(request.target + "|" + request.body + "|" + request.key + "|" +
                       request.authorization + (request.keep_alive ? "|keep" : "|close"));
        if (!request.keep_alive) return seen;
        request.clear();
        parser.reset(request);
      } else if (step.consumed == 0) {
        break;  // it wants more
      }
    }
  }
  // What has not ended may be refused for what is there, or waited for: the parser judges a header
  // or a trailer at its first bytes, and then not before its end (or its limit, or its time).
  seen.push_back(kNone);
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto bytes = fuzz::text_of(data + 1, size - 1);
  // How the network cuts a request changes nothing of what it says.
  fuzz::require(read(bytes, bytes.size() + 1) == read(bytes, data[0] % 32 + 1),
                "pieces are read otherwise than the whole");
  return 0;
}
