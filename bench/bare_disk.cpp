#include "bench/bare_disk.hpp"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <initializer_list>
#include <memory>
#include <stdexcept>

#include "bench/report.hpp"

namespace sluice::bench {
namespace {

struct CloseDb {
  void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
};
struct Finalize {
  void operator()(sqlite3_stmt* s) const { sqlite3_finalize(s); }
};
using Db = std::unique_ptr<sqlite3, CloseDb>;
using Prepared = std::unique_ptr<sqlite3_stmt, Finalize>;

void must(int code, sqlite3* db) {
  if (code != SQLITE_OK && code != SQLITE_DONE && code != SQLITE_ROW)
    throw std::runtime_error(std::string("bare loop: ") + sqlite3_errmsg(db));
}

Prepared prepare(sqlite3* db, const char* sql) {
  sqlite3_stmt* raw = nullptr;
  must(sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &raw, nullptr), db);
  return Prepared(raw);
}

void step(const Prepared& statement, sqlite3* db) {
  must(sqlite3_step(statement.get()), db);
  sqlite3_reset(statement.get());
}

void blob(const Prepared& s, int at, const std::string& value) {
  sqlite3_bind_blob(s.get(), at, value.data(), static_cast<int>(value.size()), SQLITE_STATIC);
}

}  // namespace

double bare_fdatasync(const std::string& path, int times) {
  const int fd = open(path.c_str(), O_CREAT | O_RDWR | O_APPEND, 0600);
  if (fd < 0) throw std::runtime_error("cannot open " + path);
  const std::string block(4096, 'x');
  const Stopwatch watch;
  for (int i = 0; i < times; ++i)
    if (write(fd, block.data(), block.size()) != 4096 || fdatasync(fd) != 0)
      throw std::runtime_error("cannot write " + path);
  const double seconds = watch.wall();
  close(fd);
  return seconds / times;
}

BareResult bare_sqlite(const std::string& path, const BareRows& rows, int group, int groups) {
  sqlite3* raw = nullptr;
  must(sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr), raw);
  const Db db(raw);
  must(sqlite3_exec(raw, "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=4000; PRAGMA cache_size=-65536",
                    nullptr, nullptr, nullptr), raw);
  const Prepared begin = prepare(raw, "BEGIN IMMEDIATE"), commit = prepare(raw, "COMMIT");
  const Prepared journal = prepare(raw, "INSERT INTO journal VALUES (?1,?2,?3)");
  const Prepared key = prepare(raw, "INSERT INTO keys VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)");
  const Prepared event = prepare(raw, "INSERT INTO events VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)");
  const Prepared state = prepare(raw, "UPDATE kv SET version=version+1, number=number+1 WHERE ns=?1 AND collection=?2 AND key=?3");
  const Prepared last = prepare(raw, "SELECT max((SELECT coalesce(max(exchange),0) FROM journal), (SELECT coalesce(max(seq),0) FROM keys), (SELECT coalesce(max(sequence),0) FROM events))");
  must(sqlite3_step(last.get()), raw);
  std::int64_t id = sqlite3_column_int64(last.get(), 0);
  sqlite3_reset(last.get());
  const std::string record(rows.journal_bytes, 'j'), scope(rows.scope_bytes, 's'), print(32, 'f'),
      reply(rows.reply_bytes, 'r'), payload(rows.event_bytes, 'e');
  const Stopwatch watch;
  for (int g = 0; g < groups; ++g) {
    step(begin, raw);
    for (int i = 0; i < group; ++i) {
      ++id;
      sqlite3_bind_int64(journal.get(), 1, id);
      sqlite3_bind_int64(journal.get(), 2, 0);
      blob(journal, 3, record);
      step(journal, raw);
      sqlite3_bind_int64(key.get(), 1, id);
      sqlite3_bind_int64(key.get(), 2, id);
      blob(key, 3, scope);
      blob(key, 4, print);
      for (int at = 5; at <= 8; ++at) sqlite3_bind_int64(key.get(), at, 1767225600000);
      blob(key, 9, reply);
      step(key, raw);
      sqlite3_bind_text(event.get(), 1, "bench", 5, SQLITE_STATIC);
      sqlite3_bind_int64(event.get(), 2, id);
      sqlite3_bind_int64(event.get(), 3, id);
      sqlite3_bind_text(event.get(), 4, "moved", 5, SQLITE_STATIC);
      blob(event, 5, payload);
      sqlite3_bind_text(event.get(), 6, "", 0, SQLITE_STATIC);
      sqlite3_bind_int64(event.get(), 7, id);
      sqlite3_bind_int64(event.get(), 8, 0);
      sqlite3_bind_int64(event.get(), 9, 1767225600000);
      step(event, raw);
      const std::string account = rows.account(static_cast<std::uint64_t>(id));
      sqlite3_bind_text(state.get(), 1, "bench", 5, SQLITE_STATIC);
      sqlite3_bind_text(state.get(), 2, "account", 7, SQLITE_STATIC);
      sqlite3_bind_text(state.get(), 3, account.data(), static_cast<int>(account.size()), SQLITE_STATIC);
      step(state, raw);
    }
    step(commit, raw);
  }
  const double wall = watch.wall(), cpu = watch.cpu();
  const double count = static_cast<double>(group) * groups;
  return {count / wall, cpu * 1e6 / count};
}

}  // namespace sluice::bench
