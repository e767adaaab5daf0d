#include "sluice/rpc/json_check.hpp"

#include <nlohmann/json.hpp>

#include "fuzz/target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto text = sluice::fuzz::text_of(data, size);
  if (sluice::rpc::check_json(text)) return 0;
  // What passes is JSON for everybody who reads it later.
  sluice::fuzz::require(nlohmann::json::accept(text),
                        "check_json passed what another parser refuses");
  return 0;
}
