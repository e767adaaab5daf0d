// An exchange's journal folded into what is known about it.
#pragma once
#include "flow/records.hpp"
#include "sluice/store/rows.hpp"

namespace sluice::flow {

struct History {
  Begun begun;
  std::vector<Intent> intents;
  std::optional<Decided> decided;
  std::vector<std::uint32_t> finished;
  std::optional<EndKind> ended;  ///< in_doubt is not an end
  std::optional<Settled> settled;
  std::optional<Paused> paused;  ///< the first phase goes on from here; unset by a later intent
  std::optional<Woken> woken;    ///< of that pause
  DurableBag bag;                ///< the newest
  std::uint32_t next_record = 0;
};

/// Fails corrupt, naming the exchange and the record.
Result<History> fold(const std::vector<store::JournalRow>& rows);

}  // namespace sluice::flow
