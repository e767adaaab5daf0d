// What makes two requests "the same", and the keys that calls further down are given.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "sluice/base/bytes.hpp"
#include "sluice/base/ids.hpp"

namespace sluice::idempotency {

/// SHA-256 over the length-prefixed command, version and projection, so that no two different
/// triples share their bytes. `projection` is what the command declares of its decoded payload.
Digest fingerprint(std::string_view command, std::uint32_t version, ByteView projection);

/// The idempotency key of a downstream call: a pure function of who calls, so that a repeated or
/// recovered call carries the same key. 46 characters of a–z, 0–9 and '-'; valid in any header.
/// `ordinal` counts the calls of one stage.
std::string derived_key(ExchangeId exchange, std::string_view stage, std::uint32_t ordinal);

}  // namespace sluice::idempotency
