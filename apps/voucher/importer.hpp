// Brings catalogue, codes and users from CSV files into a store: streamed, in batches of one
// commit each, and resumable. What is there already is recognised, so a run that was cut off, at
// any instant, is simply repeated.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "apps/voucher/csv.hpp"
#include "sluice/base/files.hpp"
#include "sluice/store/store.hpp"

namespace sluice::voucher {

struct ImportProgress {
  std::string file;
  std::uint64_t rows = 0;        ///< read so far
  std::uint64_t imported = 0;    ///< of them new
  std::uint64_t recognised = 0;  ///< of them there already
  std::uint64_t bytes = 0;
  std::uint64_t total_bytes = 0;  ///< 0: unknown
};

struct ImportOptions {
  std::string ns = "voucher";
  std::size_t batch = 500;  ///< rows in one commit
  /// Called after each commit; false ends the import with `cancelled` (what was committed stays).
  std::function<bool(const ImportProgress&)> progress;
};

/// All block, on a plain thread. Failures: invalid_argument (malformed_csv, naming file, line and
/// column; conflicting_row when a row is there with other contents), those of the store.
Result<ImportProgress> import_vouchers(store::Store& store, ByteSource source, std::string file,
                                       const ImportOptions& options);
Result<ImportProgress> import_codes(store::Store& store, ByteSource source, std::string file,
                                    const ImportOptions& options);
/// One code for each voucher, which all its buyers get. conflicting_row: it has codes of its own, or
/// another universal code.
Result<ImportProgress> import_universal_codes(store::Store& store, ByteSource source, std::string file,
                                              const ImportOptions& options);
Result<ImportProgress> import_users(store::Store& store, ByteSource source, std::string file,
                                    const ImportOptions& options);

/// Reads a file from its beginning. `file` must outlive it.
ByteSource read_from(File& file);
ByteSource read_from_text(std::string text);

/// Rows per second and the time left on stderr, at most ten times a second; for terminals.
std::function<bool(const ImportProgress&)> terminal_progress(Clock& clock);

}  // namespace sluice::voucher
