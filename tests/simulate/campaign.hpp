// One history: a seeded workload against a spine that crashes, judged by checkers. docs: the same
// seed takes the same way, so a failing seed is a test.
#pragma once
#include <string>
#include <vector>

#include "simulate/spine.hpp"

namespace sluice::simulate {

struct HistoryOptions {
  std::uint64_t seed = 1;
  Backing backing = Backing::sqlite;
  bool externals = true;  ///< operations with the partner
  bool print = false;     ///< every entry of the history to standard error
};

struct Verdict {
  std::vector<std::string> violations;  ///< empty: all promises held
  std::uint64_t hash = 0;
  std::uint64_t entries = 0;
  std::uint64_t operations = 0;
  std::uint64_t attempts = 0;
  std::uint64_t committed = 0;
  std::uint64_t declined = 0;
  std::uint64_t replayed = 0;
  std::uint64_t crashes = 0;
  std::uint64_t failed_opens = 0;
  std::uint64_t partner_calls = 0;
};

/// The spines this build has: "store" (store::Commit alone), and those above it.
std::vector<std::string> spine_names();
std::string default_spine();
SpineFactory spine_named(const std::string& name);

Verdict run_history(const HistoryOptions& options, const SpineFactory& factory);

}  // namespace sluice::simulate
