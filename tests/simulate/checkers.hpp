// What clients remember, and what must be true of it in the end.
#pragma once
#include <map>
#include <set>
#include <string>
#include <vector>

#include "simulate/spine.hpp"

namespace sluice::simulate {

/// All that was ever told about one operation.
struct Memory {
  Operation operation;
  std::set<Bytes> replies;  ///< final ones
  bool committed = false;
  bool declined = false;
  bool final() const noexcept { return committed || declined; }
};

/// What the store holds once everything has settled.
struct Books {
  std::vector<std::int64_t> balances;
  std::map<std::string, std::int64_t> effects;  ///< by key
  std::vector<store::OpenRow> open;
};

/// Takes a new answer into account; returns what it breaks, if anything.
std::vector<std::string> remember(Memory& memory, const Answer& answer);

/// once, whole, honest, and the partner's view of them.
std::vector<std::string> judge(const std::vector<Memory>& memories, const Books& books,
                               const Partner& partner);

}  // namespace sluice::simulate
