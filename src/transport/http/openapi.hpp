// The HTTP API as an OpenAPI 3.1 document, made from the registry: there is no second description.
#pragma once
#include <string>

#include "sluice/rpc/registry.hpp"

namespace sluice::transport {

/// JSON text. One path per command, with its own input schema.
std::string openapi_document(const rpc::Registry& registry);

}  // namespace sluice::transport
