// The embedded store: one SQLite database in WAL mode with synchronous=FULL, one writer that puts
// everything waiting into one transaction, readers apart.
#pragma once
#include <memory>
#include <string>

#include "sluice/base/executor.hpp"
#include "sluice/base/files.hpp"
#include "sluice/base/random.hpp"
#include "sluice/store/store.hpp"

namespace sluice::store {

struct SqliteOptions {
  std::string path;                        ///< the database file; "-wal" and "-shm" stand beside it
  std::size_t max_queue = 100'000;         ///< waiting Commits; past it: overloaded
  std::size_t max_group = 1024;            ///< Commits in one transaction
  std::uint64_t max_live_keys = 20'000'000;  ///< 16 bytes of memory each; past it: overloaded
  milliseconds lazy_delay{5};              ///< longest wait of a lazy Commit
  std::size_t cache_mib = 64;              ///< page cache of the writer
  std::size_t checkpoint_pages = 4000;     ///< size of the log at which it is copied back
  std::size_t max_readers = 4;             ///< read connections; further readers wait their turn
  milliseconds max_reader_wait{2000};      ///< longest wait for one; past it: overloaded
  bool verify = false;                     ///< full integrity check on opening
  bool restored = false;                   ///< what is in the file is of an earlier point: a new incarnation is drawn
  /// When set, the database lives on this file layer and is used from one thread only: simulation.
  Files* files = nullptr;
};

/// What only an embedded database can do. Thread-safe.
class SqliteStore : public Store {
 public:
  /// Copies a consistent snapshot to `path` while the store works: see backup_sqlite_store() in backup.hpp.
  virtual Status backup(const std::string& path) = 0;
  /// Reads every page and index; fails `corrupt` naming what is wrong.
  virtual Status integrity_check() = 0;
  /// The file is another one than the database was in before (a copy, say a backup that was put in its place), or
  /// `restored` was said: a new incarnation was drawn on opening.
  virtual bool of_another_file() const = 0;
};

/// Opens or creates the database and upgrades its schema. Failures: corrupt (not a database, damaged,
/// made by a newer version), forbidden (not writable), unavailable (disk full, locked by another
/// process), each naming the path and what to do. `clock`, `random` and `executor`
/// (which runs the writer) must outlive the store.
Result<std::unique_ptr<SqliteStore>> open_sqlite_store(SqliteOptions options, Clock& clock,
                                                       Random& random, Executor& executor);

}  // namespace sluice::store
