// Journal records: what is durable about an exchange. docs/formats.md has the grammar and a worked
// example. Reading any bytes is safe.
#pragma once
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "flow/machine.hpp"
#include "sluice/base/bytes.hpp"
#include "sluice/base/reply.hpp"

namespace sluice::flow {

using DurableBag = std::vector<std::pair<std::string, Bytes>>;

struct Begun {
  std::string flow;
  std::uint32_t version = 1;
  std::uint64_t graph = 0;
  std::string ns;
  std::string reference, principal, command, correlation, trace;
  Bytes request;      ///< empty for store-only exchanges: recovery never needs it
  Bytes scope;        ///< of the idempotency key; empty without one
  Digest fingerprint{};
  std::int64_t key_ttl_ms = 0;
  std::uint64_t key_token = 0;
  bool audited = false;
};
struct Intent {
  std::uint32_t step = 0;
  std::uint16_t stage = 0;
  DurableBag bag;
};
struct Decided {
  Decision decision = Decision::none;
  std::string cause;
  Bytes reply;  ///< Reply::encode(); empty: none
  Steps steps;
  DurableBag bag;
};
struct Finished {
  std::uint32_t step = 0;
};
/// Stored; append only.
enum class EndKind : std::uint8_t { committed = 1, aborted = 2, in_doubt = 3 };
struct Ended {
  EndKind kind = EndKind::committed;
};
struct Settled {
  EndKind kind = EndKind::committed;
  std::string by;
  std::string reason;
};
/// Everything the first phase has gathered: after a restart it goes on from here.
struct Paused {
  std::string token;
  std::int64_t until_ms = 0;  ///< by the store's clock
  Machine::Position at;
  DurableBag bag;
  Bytes response;  ///< Reply::encode(); empty: none
  Bytes draft;     ///< encode_draft()
};
struct Woken {
  Bytes payload;
};
using Record = std::variant<Begun, Intent, Decided, Finished, Ended, Settled, Paused, Woken>;

/// One journal row holds one or more records.
Bytes encode_row(std::initializer_list<const Record*> records);
inline Bytes encode_row(const Record& record) { return encode_row({&record}); }
/// Fails `corrupt`, saying where and why.
Result<std::vector<Record>> decode_row(ByteView row);

}  // namespace sluice::flow
