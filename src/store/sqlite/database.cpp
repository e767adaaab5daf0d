#include "store/sqlite/database.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace sluice::store {
namespace {

struct Advice {
  FailureKind kind;
  const char* code;
  const char* text;
};

Advice advice_for(int code) {
  switch (code & 0xFF) {
    case SQLITE_FULL:
      return {FailureKind::unavailable, "disk_full",
              "free space on the disk (or raise the quota or file-size limit); nothing was written and "
              "the store goes on when there is room"};
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return {FailureKind::unavailable, "store_read_only",
              "make the file and its folder writable for this user (the log is written beside it)"};
    case SQLITE_CANTOPEN:
      return {FailureKind::unavailable, "store_cannot_open",
              "check that the folder exists and that this user may write in it"};
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return {FailureKind::unavailable, "store_locked",
              "another process has the database; stop it, or give this one a path of its own"};
    case SQLITE_NOTADB:
      return {FailureKind::corrupt, "not_a_database",
              "the file is not a Sluice database; check the path, or restore a backup"};
    case SQLITE_CORRUPT:
      return {FailureKind::corrupt, "store_corrupt",
              "the database is damaged; keep the files, restore a backup, see docs/operations.md"};
    case SQLITE_IOERR:
      return {FailureKind::unavailable, "store_io",
              "the disk refused; look at the system log, then restart: recovery decides what was written"};
    case SQLITE_NOMEM:
      return {FailureKind::overloaded, "out_of_memory", "give the process more memory"};
    default:
      return {FailureKind::internal, "store_error", "this is a defect; report it with this text"};
  }
}

// SQLite knows a full disk by ENOSPC alone; a quota or a limit on the size of files refuses a write
// likewise, and nothing of it counts either. The error is that of the file, database or log:
// sqlite3_system_errno() has forgotten it by then. A failed sync is another matter.
bool refused_for_room(sqlite3* handle) {
  bool found = false;
  for (const int which : {SQLITE_FCNTL_FILE_POINTER, SQLITE_FCNTL_JOURNAL_POINTER}) {
    sqlite3_file* file = nullptr;
    int error = 0;
    if (sqlite3_file_control(handle, "main", which, &file) == SQLITE_OK && file != nullptr &&
        file->pMethods != nullptr &&
        file->pMethods->xFileControl(file, SQLITE_FCNTL_LAST_ERRNO, &error) == SQLITE_OK && error == EIO)
      return false;  // the other file's error may be an old one
    found = found || error == EFBIG || error == EDQUOT;
  }
  return found;
}

}  // namespace

Failure database_failure(int code, std::string_view path, std::string_view words,
                         std::string_view doing) {
  const Advice advice = advice_for(code);
  std::string text(doing);
  text.append(" ").append(path).append(": ").append(words);
  text.append(" (SQLite ").append(std::to_string(code)).append("); ").append(advice.text);
  return Failure(advice.kind, advice.code, std::move(text));
}

Failure database_failure(sqlite3* handle, std::string_view doing) {
  const char* path = sqlite3_db_filename(handle, "main");
  int code = sqlite3_extended_errcode(handle);
  if (code == SQLITE_IOERR_WRITE && refused_for_room(handle)) code = SQLITE_FULL;
  return database_failure(code, path == nullptr ? "database" : path,
                          sqlite3_errmsg(handle), doing);
}

namespace {
bool is_folder(const std::string& path) {
  struct stat found;
  return ::stat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode);
}
// A database that is not there yet is made for its owner alone: it holds names, replies and what is
// worth money. SQLite itself would ask for 0644; its -wal and -shm take the mode of the database.
// Not with the umask, which is every thread's. What fails here fails again, with words, in SQLite.
void make_private(const std::string& path) {
  const int fd = ::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0) ::close(fd);
}
}  // namespace

Result<Database> open_database(const std::string& path, int flags, const char* vfs) {
  if (vfs == nullptr && is_folder(path))
    return fail(FailureKind::invalid_argument, "store_is_a_folder",
                "opening " + path + ": this is a folder; expected the path of a database file, as " + path +
                    (path.ends_with('/') ? "" : "/") + "sluice.db");
  if (vfs == nullptr && (flags & SQLITE_OPEN_CREATE) != 0) make_private(path);
  sqlite3* raw = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &raw, flags | SQLITE_OPEN_NOMUTEX, vfs);
  Database handle(raw);
  if (code != SQLITE_OK)
    return fail(database_failure(code, path, raw == nullptr ? "out of memory" : sqlite3_errmsg(raw),
                                 "opening"));
  sqlite3_extended_result_codes(raw, 1);
  return handle;
}

std::string file_itself(const std::string& path) {
  constexpr int kLinksMax = 40;  // as many as Linux follows
  std::filesystem::path at = path;
  std::error_code error;
  for (int i = 0; i < kLinksMax && std::filesystem::is_symlink(at, error); ++i) {
    const auto to = std::filesystem::read_symlink(at, error);
    if (error) return path;
    at = to.is_absolute() ? to : at.parent_path() / to;
  }
  return at.string();
}

// A number is given to another file when this one is gone; with when it was made it is one file's.
std::int64_t identity_of(const std::string& path) noexcept {
  struct statx found{};
  if (::statx(AT_FDCWD, path.c_str(), 0, STATX_INO | STATX_BTIME, &found) != 0) return 0;
  if ((found.stx_mask & STATX_INO) == 0) return 0;
  if ((found.stx_mask & STATX_BTIME) == 0) found.stx_btime = {};
  Bytes parts;
  ByteWriter out(parts);
  out.u64(found.stx_ino);
  out.u64(static_cast<std::uint64_t>(found.stx_btime.tv_sec));
  out.u64(found.stx_btime.tv_nsec);
  return static_cast<std::int64_t>(hash64(parts) >> 1 | 1);
}

OwnerLock::~OwnerLock() {
  if (fd_ >= 0) ::close(fd_);
}

Result<OwnerLock> OwnerLock::take(const std::string& path) {
  const std::string file = path + ".lock";
  OwnerLock lock;
  lock.fd_ = ::open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  if (lock.fd_ < 0)
    return fail(database_failure(errno == EROFS ? SQLITE_READONLY : SQLITE_CANTOPEN, file, std::strerror(errno), "opening"));
  if (::flock(lock.fd_, LOCK_EX | LOCK_NB) != 0)
    return fail(database_failure(SQLITE_BUSY, path, "it is open elsewhere", "opening"));
  return lock;
}

Status execute(sqlite3* handle, const char* sql) {
  if (sqlite3_exec(handle, sql, nullptr, nullptr, nullptr) != SQLITE_OK)
    return fail(database_failure(handle, "running a statement on"));
  return {};
}

Result<Statement> Statement::prepare(sqlite3* handle, const char* sql) {
  sqlite3_stmt* raw = nullptr;
  if (sqlite3_prepare_v3(handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &raw, nullptr) != SQLITE_OK)
    return fail(database_failure(handle, "preparing a statement on"));
  Statement statement;
  statement.handle_.reset(raw);
  return statement;
}

Result<bool> Statement::step() {
  const int code = sqlite3_step(handle_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) {
    reset();
    return false;
  }
  Failure failure = database_failure(sqlite3_db_handle(handle_.get()), "writing or reading");
  reset();
  return fail(std::move(failure));
}

Status Statement::run() {
  const auto stepped = step();
  if (!stepped) return fail(stepped.error());
  reset();
  return {};
}

}  // namespace sluice::store
