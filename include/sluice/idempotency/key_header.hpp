// The Idempotency-Key header, as clients send it: draft-ietf-httpapi-idempotency-key-header asks
// for a structured-field string ("…"), much of the world sends the bare token.
#pragma once
#include <string>
#include <string_view>

#include "sluice/base/failure.hpp"

namespace sluice::idempotency {

inline constexpr std::size_t kMaxKeyBytes = 255;

/// The key without its quotes and escapes: 1–255 printable ASCII characters. Spaces around the
/// value are ignored. A quoted and a bare key with the same text are the same key. Parameters
/// after the string (RFC 8941: ";name=value") are ignored. Fails invalid_argument with the code
/// bad_idempotency_key; nothing of the value is repeated in the message.
Result<std::string> parse_key_header(std::string_view value);

}  // namespace sluice::idempotency
