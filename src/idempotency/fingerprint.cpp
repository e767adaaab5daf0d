#include "sluice/idempotency/fingerprint.hpp"

#include <algorithm>

namespace sluice::idempotency {

Digest fingerprint(std::string_view command, std::uint32_t version, ByteView projection) {
  Bytes covered;
  covered.reserve(command.size() + projection.size() + 20);
  ByteWriter out(covered);
  out.bytes(command);
  out.varint(version);
  out.bytes(projection);
  return sha256(covered);
}

std::string derived_key(ExchangeId exchange, std::string_view stage, std::uint32_t ordinal) {
  Bytes covered;
  ByteWriter out(covered);
  out.u64(exchange.value);
  out.bytes(stage);
  out.varint(ordinal);
  // The exchange stands in front so that an operator downstream can find it; 128 bits of the
  // digest are enough for what follows, because only one exchange's calls share the prefix.
  std::string key = to_string(exchange);
  std::ranges::transform(key, key.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return key + "-" + to_hex(sha256(covered).view().substr(0, 16));
}

}  // namespace sluice::idempotency
