// Two servers on three PostgreSQL nodes under Patroni, whose primary meets with one accident after another.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace sluice::crash {

/// Faults of `kinds` in turn, or of all: kill, freeze, isolate, cut, fill, crash. Only within
/// tests/failover/inside.sh. Prints a line for each; the exit status.
int failover(const std::string& server, int rounds, std::uint64_t seed, std::vector<std::string> kinds);

}  // namespace sluice::crash
