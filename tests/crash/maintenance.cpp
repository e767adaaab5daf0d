#include "crash/maintenance.hpp"

#include <cstdlib>

#include "crash/client.hpp"

namespace sluice::crash {
namespace {

constexpr const char* kTables[] = {"kv", "keys", "leases", "open_exchanges", "journal", "audit", "events", "event_heads", "writers"};
constexpr int kTurns = 2, kHotTurns = 6;  // the first two tables are written by every commit
constexpr int kCancels = 60;

class Administrator {
 public:
  Administrator(testing_support::PrivatePostgres& server, const std::string& database) : server_(server), database_(database) {}

  void rewrite(const std::string& table) {
    const std::string name = "sluice." + table;
    done_.rewritten += does("VACUUM (FULL) " + name) + does("CLUSTER " + name + " USING " + table + "_pkey");
  }
  void reindex() { (void)does("REINDEX SCHEMA sluice"); }
  void lock() {
    (void)does("BEGIN; LOCK TABLE sluice.kv, sluice.keys IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(2); COMMIT");
  }
  // One at its COMMIT waits for the disk, which is short: every other time it is whatever runs.
  void cancel() {
    for (int i = 0; i < kCancels; ++i) {
      const std::string at = i % 2 == 0 ? " AND query ~* '^\\s*commit'" : "";
      if (does("SELECT count(*) FILTER (WHERE pg_cancel_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() "
               "AND pid <> pg_backend_pid() AND state = 'active'" + at))
        done_.cancelled += std::atoi(said_.c_str());
      Client::pause(10'000);
    }
  }
  const Maintained& done() const noexcept { return done_; }

 private:
  bool does(const std::string& statement) {
    try {
      said_ = server_.sql(statement, database_);
      return true;
    } catch (const std::exception&) {
      ++done_.refused;
      return false;
    }
  }

  testing_support::PrivatePostgres& server_;
  const std::string database_;
  std::string said_;
  Maintained done_;
};

}  // namespace

Maintained rewrite_tables(testing_support::PrivatePostgres& server, const std::string& database) {
  Administrator administrator(server, database);
  for (int turn = 0; turn < kTurns; ++turn) {
    for (const char* table : kTables) administrator.rewrite(table);
    for (int hot = 0; hot < kHotTurns; ++hot) administrator.rewrite(kTables[hot % 2]);
  }
  return administrator.done();
}

Maintained hold_up_sessions(testing_support::PrivatePostgres& server, const std::string& database) {
  Administrator administrator(server, database);
  administrator.reindex();
  administrator.lock();
  administrator.cancel();
  return administrator.done();
}

}  // namespace sluice::crash
