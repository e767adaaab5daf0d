// A thin wall around the SQLite C API: connections, statements, and what its errors mean.
#pragma once
#include <sqlite3.h>

#include <memory>
#include <string>
#include <utility>

#include "sluice/base/bytes.hpp"
#include "sluice/base/time.hpp"

namespace sluice::store {

struct CloseDatabase {
  void operator()(sqlite3* handle) const noexcept { sqlite3_close_v2(handle); }
};
using Database = std::unique_ptr<sqlite3, CloseDatabase>;

/// The failure of the last call on `handle`: kind, the path, SQLite's words, what to do.
Failure database_failure(sqlite3* handle, std::string_view doing);
Failure database_failure(int code, std::string_view path, std::string_view words,
                         std::string_view doing);

/// Opens without creating anything unless `flags` has SQLITE_OPEN_CREATE; what is created, its owner
/// alone may read.
Result<Database> open_database(const std::string& path, int flags, const char* vfs);
Status execute(sqlite3* handle, const char* sql);

/// Where the last of the links that `path` begins leads, also when nothing is there yet. SQLite follows
/// them as well: its log lies beside the file, so must the lock, and one file has one owner.
std::string file_itself(const std::string& path);

/// Which file it is, whatever its name: changes with a copy, not with a rename. 0: the file system does not say.
std::int64_t identity_of(const std::string& path) noexcept;

/// One process owns a database: an advisory lock on "<path>.lock", held until destruction (or the
/// death of the process). Fails store_locked when another has it.
class OwnerLock {
 public:
  OwnerLock() = default;
  OwnerLock(OwnerLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OwnerLock& operator=(OwnerLock&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~OwnerLock();
  static Result<OwnerLock> take(const std::string& path);

 private:
  int fd_ = -1;
};

/// A prepared statement. Bound views must stay valid until the next reset().
class Statement {
 public:
  Statement() = default;
  static Result<Statement> prepare(sqlite3* handle, const char* sql);

  Statement& bind(int at, std::int64_t value) noexcept {
    sqlite3_bind_int64(handle_.get(), at, value);
    return *this;
  }
  Statement& bind_text(int at, std::string_view value) noexcept {
    sqlite3_bind_text(handle_.get(), at, value.data(), static_cast<int>(value.size()), SQLITE_STATIC);
    return *this;
  }
  Statement& bind_blob(int at, ByteView value) noexcept {
    // A null pointer would bind NULL; an empty blob is not NULL.
    sqlite3_bind_blob(handle_.get(), at, value.empty() ? "" : value.data(),
                      static_cast<int>(value.size()), SQLITE_STATIC);
    return *this;
  }
  /// True: a row is there. False: done; the statement is reset. Fails with `database_failure`.
  Result<bool> step();
  /// Runs a statement that yields no rows.
  Status run();
  void reset() noexcept { sqlite3_reset(handle_.get()); }

  std::int64_t integer(int column) const noexcept { return sqlite3_column_int64(handle_.get(), column); }
  std::string bytes(int column) const {
    const void* data = sqlite3_column_blob(handle_.get(), column);
    const int size = sqlite3_column_bytes(handle_.get(), column);
    return data == nullptr ? std::string() : std::string(static_cast<const char*>(data), static_cast<std::size_t>(size));
  }
  ByteView view(int column) const noexcept {
    const void* data = sqlite3_column_blob(handle_.get(), column);
    const int size = sqlite3_column_bytes(handle_.get(), column);
    return {static_cast<const char*>(data), static_cast<std::size_t>(size)};
  }
  bool null(int column) const noexcept {
    return sqlite3_column_type(handle_.get(), column) == SQLITE_NULL;
  }
  WallTime time(int column) const noexcept { return WallTime(milliseconds(integer(column))); }

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* s) const noexcept { sqlite3_finalize(s); }
  };
  std::unique_ptr<sqlite3_stmt, Finalize> handle_;
};

inline std::int64_t stored(WallTime at) noexcept { return at.time_since_epoch().count(); }
inline std::int64_t stored(std::uint64_t id) noexcept { return static_cast<std::int64_t>(id); }

}  // namespace sluice::store
