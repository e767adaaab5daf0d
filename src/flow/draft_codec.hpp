// A draft as bytes, for the record of a pause. docs/formats.md describes it.
#pragma once
#include "sluice/base/bytes.hpp"
#include "sluice/flow/draft.hpp"

namespace sluice::flow {

Bytes encode_draft(const Draft& draft);
/// Fails corrupt on anything encode_draft() did not write.
Result<Draft> decode_draft(ByteView bytes);

}  // namespace sluice::flow
