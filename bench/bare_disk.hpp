// The limits beside the durable bench: fdatasync alone, and a plain SQLite loop.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace sluice::bench {

/// Seconds of one 4 KiB append + fdatasync, on average over `times`.
double bare_fdatasync(const std::string& path, int times);

struct BareResult {
  double per_second = 0;
  double cpu_us = 0;  ///< CPU microseconds per transaction
};

/// Sizes of the rows of one durable transaction, taken from the product's own.
struct BareRows {
  std::size_t journal_bytes = 0;
  std::size_t scope_bytes = 0;
  std::size_t reply_bytes = 0;
  std::size_t event_bytes = 0;
  std::string (*account)(std::uint64_t n) = nullptr;
};

/// Writes the same rows (journal, key with reply, event, one account) with prepared statements into
/// the database at `path` (made and filled with accounts by the product, closed), `group`
/// transactions per COMMIT, WAL, synchronous=FULL.
BareResult bare_sqlite(const std::string& path, const BareRows& rows, int group, int groups);

}  // namespace sluice::bench
