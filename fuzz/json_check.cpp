#include "sluice/rpc/json_canonical.hpp"

#include <nlohmann/json.hpp>

#include "fuzz/target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto text = sluice::fuzz::text_of(data, size);
  if (sluice::rpc::check_json(text)) return 0;
  // What passes is JSON for everybody who reads it later.
  sluice::fuzz::require(nlohmann::json::accept(text),
                        "check_json passed what another parser refuses");
  std::string canonical, again;
  if (sluice::rpc::canonical_json(text, canonical)) return 0;  // a name stands twice
  sluice::fuzz::require(nlohmann::json::parse(canonical) == nlohmann::json::parse(text),
                        "the canonical form says something else");
  sluice::fuzz::require(!sluice::rpc::canonical_json(canonical, again) && again == canonical,
                        "the canonical form has another one");
  return 0;
}
