// Two servers on one PostgreSQL, each through a wire of its own that breaks: what NODE-6 names.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace sluice::crash {

/// `rounds` faults, of `kinds` in turn, or of all:
///   partition  one node's wire is cut: its connections are reset, new ones refused
///   half_open  one node's wire goes dead without a word
///   storm      both lose their connections while somebody has taken all there are
///   restart    the database crashes and comes back
///   maintenance  its tables are rewritten, locked and indexed anew, sessions cancelled at their COMMIT
///   full       its disk has no room for a while; needs CRASH_SMALL_DISK, a small file system of its own
/// Prints a line for each kind; the exit status.
int database_faults(const std::string& server, int rounds, std::uint64_t seed, std::vector<std::string> kinds);

}  // namespace sluice::crash
