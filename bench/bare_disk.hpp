// The limits beside the durable bench: fdatasync alone, and a plain SQLite loop.
#pragma once
#include <cstddef>
#include <string>

namespace sluice::bench {

/// Seconds of one 4 KiB append + fdatasync, per sample.
double bare_fdatasync(const std::string& path, int times);

struct BareResult {
  double per_second = 0;
  double cpu_us = 0;  ///< CPU microseconds per transaction
};

/// Writes the rows of one durable transaction (journal, key with reply, state, event, audit) with
/// prepared statements, `group` transactions per COMMIT, WAL, synchronous=FULL, `groups` times.
/// `schema` is the product's own, so that the rows and tables are the same.
BareResult bare_sqlite(const std::string& path, int group, int groups, std::size_t reply_bytes);

}  // namespace sluice::bench
