#include "fuzz/target.hpp"
#include "sluice/resilience/rule.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  (void)sluice::resilience::parse_rules(sluice::fuzz::text_of(data, size), "fuzz.toml");
  return 0;
}
