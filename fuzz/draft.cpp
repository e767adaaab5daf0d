#include "flow/draft_codec.hpp"
#include "fuzz/target.hpp"

using namespace sluice;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (const auto draft = flow::decode_draft(fuzz::text_of(data, size))) {
    const Bytes once = flow::encode_draft(*draft);
    const auto again = flow::decode_draft(once);
    fuzz::require(again.has_value(), "a decoded draft does not read back");
    fuzz::require(flow::encode_draft(*again) == once, "a draft changes when read and written");
  }
  return 0;
}
