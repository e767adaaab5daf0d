// The wall around libpq: one connection in pipeline mode, every wait with a deadline of its own,
// because a server that was stopped answers nothing and breaks nothing. One thread at a time.
#pragma once
#include <libpq-fe.h>

#include <memory>
#include <unordered_set>
#include <vector>

#include "sluice/base/runtime.hpp"
#include "sluice/store/postgres.hpp"
#include "store/postgres/params.hpp"

namespace sluice::store {

/// `name` and `sql` are literals; the address of the statement is its identity.
struct PgStatement {
  const char* name;
  const char* sql;
};

/// Rows in binary form.
class PgRows {
 public:
  explicit PgRows(PGresult* raw) noexcept : raw_(raw) {}
  std::size_t size() const noexcept { return raw_ ? static_cast<std::size_t>(PQntuples(raw_.get())) : 0; }
  bool null(std::size_t row, int column) const noexcept { return PQgetisnull(raw_.get(), int(row), column) != 0; }
  ByteView view(std::size_t row, int column) const noexcept {
    return {PQgetvalue(raw_.get(), int(row), column), static_cast<std::size_t>(PQgetlength(raw_.get(), int(row), column))};
  }
  Bytes bytes(std::size_t row, int column) const { return Bytes(view(row, column)); }
  /// Of any integer column, boolean or xid.
  std::int64_t integer(std::size_t row, int column) const noexcept {
    const ByteView v = view(row, column);
    std::uint64_t value = v.size() == 8 || v.size() == 1 || (static_cast<unsigned char>(v.empty() ? 0 : v[0]) & 0x80) == 0 ? 0 : ~std::uint64_t{0};
    for (const char c : v) value = value << 8 | static_cast<unsigned char>(c);
    return static_cast<std::int64_t>(value);
  }
  std::uint64_t number(std::size_t row, int column) const noexcept { return static_cast<std::uint64_t>(integer(row, column)); }
  std::uint32_t xid(std::size_t row, int column) const noexcept { return static_cast<std::uint32_t>(integer(row, column)); }
  /// Block and row as one number.
  std::uint64_t tid(std::size_t row, int column) const noexcept { return number(row, column) & 0xffff'ffff'ffff; }
  WallTime time(std::size_t row, int column) const noexcept { return WallTime(milliseconds(integer(row, column))); }
  const char* tag() const noexcept { return PQcmdStatus(raw_.get()); }

 private:
  struct Clear {
    void operator()(PGresult* r) const noexcept { PQclear(r); }
  };
  std::unique_ptr<PGresult, Clear> raw_;
};

class PgConnection {
 public:
  /// Connects to a server that takes writes. Fails unavailable, forbidden or invalid_argument.
  static Result<std::unique_ptr<PgConnection>> open(const PostgresOptions& options);
  ~PgConnection();
  PgConnection(const PgConnection&) = delete;
  PgConnection& operator=(const PgConnection&) = delete;

  /// Queues a statement; nothing is known of it before finish().
  void send(const PgStatement& statement, PgParams params = {});
  /// Closes the batch, sends what is queued and waits for all of it. The rows of each statement in
  /// order, or the first failure: then the rest of the batch did not run. After a failure with
  /// broken() the connection is of no more use, and what became of the batch is not known.
  Result<std::vector<PgRows>> finish();
  /// One statement, or several without parameters separated by semicolons, outside of pipelines.
  Result<PgRows> run(const char* sql, PgParams params = {});
  /// One statement in a transaction of its own, of the level that is counted on whatever the default is: sees what
  /// was committed before it got its locks.
  Result<PgRows> transact(const char* sql, PgParams params = {});
  Status script(const char* sql);

  bool broken() const noexcept { return broken_; }
  /// True while a transaction block stands open or failed.
  bool in_transaction() const noexcept;
  /// Of the last failure that the server told: five characters, or empty.
  const std::string& sqlstate() const noexcept { return sqlstate_; }
  int backend() const noexcept { return PQbackendPID(raw_.get()); }
  /// For one that broke because no answer came: a session that waits for its standby does not notice that nobody waits for
  /// it, and would keep its place among max_connections. By another connection, as long as opening one and asking takes;
  /// behind a pooler nothing, as whose session it is is not known. What it was about to commit is then committed here
  /// without its standby: only for what changes nothing that may be told.
  void end_wait(const PostgresOptions& options) const;
  /// Statements and batches (round trips) sent since this was last asked.
  std::pair<std::uint64_t, std::uint64_t> take_counts() noexcept {
    return {std::exchange(statements_, 0), std::exchange(round_trips_, 0)};
  }
  void set_timeout(milliseconds timeout) noexcept { timeout_ = timeout; }

 private:
  struct Finish {
    void operator()(PGconn* c) const noexcept { PQfinish(c); }
  };
  using Raw = std::unique_ptr<PGconn, Finish>;
  PgConnection(Raw raw, const PostgresOptions& options);
  static void notice(void* self, const PGresult* result);
  Failure lost(const char* what);
  Failure hung_up(const std::optional<Failure>& said);
  Failure told(PGresult* result);
  bool wait(bool reading, bool writing, Instant until) noexcept;

  Raw raw_;
  RealClock clock_;  // the server is outside of any virtual time
  const bool prepare_;
  milliseconds timeout_;
  std::string where_;
  std::string sqlstate_;
  bool broken_ = false;
  bool unreplicated_ = false;  // a COMMIT was told to stop waiting for its standby
  std::unordered_set<const PgStatement*> prepared_;
  std::vector<const PgStatement*> sent_;  // null: a query; otherwise the preparing of one
  std::optional<Failure> send_failed_;
  std::uint64_t statements_ = 0, round_trips_ = 0;
};

}  // namespace sluice::store
