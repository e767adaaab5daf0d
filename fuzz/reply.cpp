#include "sluice/base/reply.hpp"

#include "fuzz/target.hpp"

using namespace sluice;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = fuzz::text_of(data, size);
  if (const auto reply = Reply::decode(bytes)) {
    const Bytes once = reply->encode();
    const auto again = Reply::decode(once);
    fuzz::require(again.has_value(), "a decoded reply does not read back");
    fuzz::require(again->encode() == once, "a reply changes when read and written");
    (void)reply->to_failure();
  }
  return 0;
}
