#include "store/sqlite/copy_database.hpp"

#include "sluice/base/runtime.hpp"
#include "store/sqlite/database.hpp"
#include "store/sqlite/orphan_log.hpp"
#include "store/sqlite/schema.hpp"

namespace sluice::store {
namespace {

constexpr int kStepPages = 1000;  // 4 MB: some tenths of a second on a slow disk
constexpr int kBusyMs = 2000;

struct FinishBackup {
  void operator()(sqlite3_backup* copy) const noexcept { sqlite3_backup_finish(copy); }
};

Status expect_ours(sqlite3* handle) {
  SLUICE_ASSIGN(Statement asked, Statement::prepare(handle, "PRAGMA application_id"));
  SLUICE_TRY(asked.step());
  const auto application = asked.integer(0);
  asked.reset();
  SLUICE_ASSIGN(Statement any, Statement::prepare(handle, "SELECT count(*) FROM sqlite_master"));
  SLUICE_TRY(any.step());
  any.reset();
  if (application == kApplicationId) return {};
  return fail(database_failure(SQLITE_NOTADB, sqlite3_db_filename(handle, "main"), "it holds no tables of Sluice", "opening"));
}

// The snapshot that all steps copy: without one of its own a backup begins anew at every commit.
Status begin_snapshot(sqlite3* source) {
  sqlite3_busy_timeout(source, kBusyMs);
  SLUICE_TRY(execute(source, "BEGIN"));
  return expect_ours(source);  // reads, which is what begins it
}

Status copy_pages(sqlite3* source, sqlite3* target, const BackupProgress& progress) {
  const std::unique_ptr<sqlite3_backup, FinishBackup> copy(sqlite3_backup_init(target, "main", source, "main"));
  if (!copy) return fail(database_failure(target, "backing up to"));
  for (;;) {
    const int code = sqlite3_backup_step(copy.get(), kStepPages);
    if (code != SQLITE_OK && code != SQLITE_DONE)
      return fail(database_failure(code, sqlite3_db_filename(target, "main"), sqlite3_errstr(code), "backing up to"));
    const auto pages = static_cast<std::uint64_t>(sqlite3_backup_pagecount(copy.get()));
    if (progress) progress(pages - static_cast<std::uint64_t>(sqlite3_backup_remaining(copy.get())), pages);
    if (code == SQLITE_DONE) return {};
  }
}

// Pages that are damaged are copied like any other, and found by whoever needs the copy.
Status expect_sound(sqlite3* handle, const std::string& from) {
  SLUICE_ASSIGN(Statement asked, Statement::prepare(handle, "PRAGMA quick_check(1)"));
  SLUICE_TRY(asked.step());
  const std::string found(asked.bytes(0));
  if (found == "ok") return {};
  return fail(FailureKind::corrupt, "integrity",
              "backing up " + from + ": the database is damaged (" + found + "); keep its files, and the backups of before");
}

Status fill(const std::string& from, const std::string& to, const char* vfs, const BackupProgress& progress) {
  SLUICE_ASSIGN(Database source, open_database(from, SQLITE_OPEN_READONLY, vfs));
  SLUICE_TRY(begin_snapshot(source.get()));
  SLUICE_ASSIGN(Database target, open_database(to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs));
  SLUICE_TRY(copy_pages(source.get(), target.get(), progress));
  SLUICE_TRY(expect_sound(target.get(), from));
  // The copy is another life of this store: leases and fences of this one mean nothing there.
  return execute(target.get(),
                 "PRAGMA synchronous=FULL; DELETE FROM meta WHERE name='incarnation';"
                 "PRAGMA wal_checkpoint(TRUNCATE)");
}

Status refuse_taken(Files& files, const std::string& path, const char* advice) {
  SLUICE_ASSIGN(const bool there, files.exists(path));
  if (!there) return {};
  return fail(FailureKind::already_exists, "backup_exists", "backup to " + path + ": the file exists; " + advice);
}

}  // namespace

Status copy_database(Files& files, const std::string& from, const std::string& to, const char* vfs,
                     const BackupProgress& progress) {
  const std::string partial = to + ".partial";
  SLUICE_TRY(refuse_orphan_log(files, from));
  SLUICE_TRY(refuse_orphan_log(files, to));
  SLUICE_TRY(refuse_taken(files, to, "name a new one"));
  SLUICE_TRY(refuse_taken(files, partial, "another backup writes it, or one was interrupted: remove it then"));
  Status done = fill(from, partial, vfs, progress);
  if (done) done = files.rename(partial, to);
  if (done) return done;
  for (const char* const beside : {"", "-wal", "-shm", "-journal"}) {
    const auto there = files.exists(partial + beside);
    if (there && *there) static_cast<void>(files.remove(partial + beside, false));
  }
  return done;
}

Status backup_sqlite_store(const std::string& from, const std::string& to, const BackupProgress& progress) {
  RealFiles files;
  return copy_database(files, file_itself(from), to, nullptr, progress);
}

}  // namespace sluice::store
