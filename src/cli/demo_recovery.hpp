// What a server says of its recovery, for the demonstration's report.
#pragma once
#include <cstdint>
#include <optional>

namespace sluice::cli {

struct Recovered {
  std::uint64_t found = 0;     ///< open at the start
  std::uint64_t left = 0;      ///< not over yet
  std::uint64_t in_doubt = 0;
  double seconds = 0;          ///< since it was first asked, until nothing was left
};

/// Asks /readyz until nothing is left, at most `seconds`. Empty: it does not answer.
std::optional<Recovered> watch_recovery(std::uint16_t port, double seconds = 10);

}  // namespace sluice::cli
