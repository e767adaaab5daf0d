#include "sluice/idempotency/key_header.hpp"

#include "fuzz/target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto key = sluice::idempotency::parse_key_header(sluice::fuzz::text_of(data, size));
  if (key)
    for (const unsigned char c : *key)
      sluice::fuzz::require(c >= 0x20 && c != 0x7F, "a control character in a key");
  return 0;
}
