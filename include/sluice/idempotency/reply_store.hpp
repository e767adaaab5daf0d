// The simple interface: look a reply up, store a reply. It does not stop two callers from running
// at the same time; Keys::claim does, and everything in Sluice uses that. This one is for callers
// with a single writer per key, such as imports and tests.
#pragma once
#include <memory>
#include <string_view>

#include "sluice/idempotency/keys.hpp"

namespace sluice::idempotency {

/// Whose key it is. Two identities never share an entry.
struct Identity {
  Namespace ns;
  std::string_view principal;
  std::string_view command;
  std::uint32_t version = 1;
};

/// The reply if it is in memory and alive, or null. Never asks the store.
std::shared_ptr<const Cached> lookup(Keys& keys, std::string_view key, const Identity& identity);

struct ReplyToStore {
  Bytes reply;
  Digest fingerprint{};
  ExchangeId exchange;
  milliseconds ttl = std::chrono::hours(24);
};
/// Makes the reply the key's answer, durably when `store` (the one behind `keys`) is given. Blocks
/// on the store: never on a lane. Storing the same fingerprint again keeps the first reply. Fails:
/// fingerprint_mismatch, in_progress (the key is claimed), or as the store does.
Status store(Keys& keys, store::Store* store, std::string_view key, const Identity& identity,
             ReplyToStore what);

}  // namespace sluice::idempotency
