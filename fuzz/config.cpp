#include "sluice/server/config.hpp"

#include "fuzz/target.hpp"

using namespace sluice;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (const auto config = server::parse_config(fuzz::text_of(data, size), "fuzz.toml", {})) {
    const std::string shown = server::show_config(*config);
    const auto again = server::parse_config(shown, "shown.toml", {});
    fuzz::require(again.has_value(), "a shown configuration does not read back");
    fuzz::require(server::show_config(*again) == shown,
                  "a configuration changes when shown and read");
  }
  return 0;
}
