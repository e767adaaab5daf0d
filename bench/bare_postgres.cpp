#include "bench/bare_postgres.hpp"

#include <fmt/core.h>

#include <atomic>
#include <mutex>
#include <stdexcept>

#include "bench/report.hpp"
#include "store/postgres/loader.hpp"

namespace sluice::bench {
namespace {

using store::KeyId;
using store::PgConnection;
using store::PgParams;
using store::PgStatement;

// The tables are the product's; the events' number comes from a sequence, because a gapless one
// would let plain transactions wait for each other's commit.
constexpr PgStatement kBegin{"begin", "BEGIN"};
constexpr PgStatement kAsync{"async", "SET LOCAL synchronous_commit = off"};
constexpr PgStatement kCommit{"commit", "COMMIT"};
constexpr PgStatement kSavepoint{"savepoint", "SAVEPOINT s"};
constexpr PgStatement kRelease{"release", "RELEASE s"};
constexpr PgStatement kAccount{"account", "UPDATE sluice.kv SET version = version + 1, number = number + 1 WHERE ns = 'bench' AND collection = 'account' AND key = $1::bytea"};
constexpr PgStatement kJournal{"journal", "INSERT INTO sluice.journal VALUES ($1::bigint, 0, $2::bytea)"};
constexpr PgStatement kKey{"key", "INSERT INTO sluice.keys VALUES ($1::uuid, $2::bytea, $3::bigint, $4::bytea, 2, 1, $3::bigint, $3::bigint, $5::bytea)"};
constexpr PgStatement kEvent{"event", "INSERT INTO sluice.events VALUES ('bare', nextval('bare_events'), $1::bigint, 'moved', $2::bytea, '', $1::bigint, 0, 0)"};
constexpr PgStatement kAccounts{"accounts", "UPDATE sluice.kv k SET version = k.version + d.n, number = k.number + d.n FROM (SELECT u, count(*) AS n FROM unnest($1::bytea[]) u GROUP BY u ORDER BY u) d WHERE k.ns = 'bench' AND k.collection = 'account' AND k.key = d.u"};
constexpr PgStatement kJournals{"journals", "INSERT INTO sluice.journal SELECT i, 0, j FROM unnest($1::bigint[], $2::bytea[]) d(i, j)"};
constexpr PgStatement kKeys{"keys", "INSERT INTO sluice.keys SELECT k, s, i, f, 2, 1, i, i, r FROM unnest($1::uuid[], $2::bytea[], $3::bigint[], $4::bytea[], $5::bytea[]) d(k, s, i, f, r)"};
constexpr PgStatement kEvents{"events", "INSERT INTO sluice.events SELECT 'bare', nextval('bare_events'), i, 'moved', p, '', i, 0, 0 FROM unnest($1::bigint[], $2::bytea[]) d(i, p)"};
constexpr PgStatement kSettings{"settings", "SELECT set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false), set_config('enable_seqscan', 'off', false), set_config('plan_cache_mode', 'force_generic_plan', false)"};

// Above every id of the product, and of an earlier run on the same database.
std::atomic<std::int64_t> next_id{0};

class Client {
 public:
  Client(const std::string& url, const BareRows& rows) : rows_(rows) {
    store::PostgresOptions options;
    options.url = url;
    auto opened = PgConnection::open(options);
    if (!opened) throw std::runtime_error(opened.error().to_string());
    connection_ = std::move(*opened);
    connection_->send(kSettings);
    finish();
  }
  void finish() {
    if (auto done = connection_->finish(); !done) throw std::runtime_error(done.error().to_string());
  }
  void send(const PgStatement& statement) { connection_->send(statement); }
  void send_rows(bool each) {
    const std::int64_t id = next_id.fetch_add(1);
    const std::string key = rows_.account(static_cast<std::uint64_t>(id));
    const std::string scope = fmt::format("{:0{}}", id, rows_.scope_bytes);
    send(kAccount, std::move(PgParams().bytes(key)), each);
    send(kJournal, std::move(PgParams().integer(id).bytes(Bytes(rows_.journal_bytes, 'j'))), each);
    send(kKey, std::move(PgParams().uuid(KeyId::of(scope).view()).bytes(scope).integer(id).bytes(Bytes(32, 'f')).bytes(Bytes(rows_.reply_bytes, 'r'))), each);
    send(kEvent, std::move(PgParams().integer(id).bytes(Bytes(rows_.event_bytes, 'e'))), each);
  }
  void send_group(int size) {
    std::vector<std::int64_t> ids;
    std::vector<std::string> accounts, scopes;
    std::vector<KeyId> keys;
    for (int i = 0; i < size; ++i) {
      ids.push_back(next_id.fetch_add(1));
      accounts.push_back(rows_.account(static_cast<std::uint64_t>(ids.back())));
      scopes.push_back(fmt::format("{:0{}}", ids.back(), rows_.scope_bytes));
      keys.push_back(KeyId::of(scopes.back()));
    }
    const Bytes journal(rows_.journal_bytes, 'j'), reply(rows_.reply_bytes, 'r'), event(rows_.event_bytes, 'e'), print(32, 'f');
    const auto same = [](auto id) { return id; };
    const auto view = [](const auto& text) { return ByteView(text); };
    const auto always = [](const Bytes& bytes) { return [&bytes](const auto&) { return ByteView(bytes); }; };
    send(kAccounts, std::move(PgParams().byte_arrays(accounts, view)), false);
    send(kJournals, std::move(PgParams().integers(ids, same).byte_arrays(ids, always(journal))), false);
    send(kKeys, std::move(PgParams().uuids(keys, [](const KeyId& k) { return k.view(); }).byte_arrays(scopes, view).integers(ids, same)
                              .byte_arrays(ids, always(print)).byte_arrays(ids, always(reply))), false);
    send(kEvents, std::move(PgParams().integers(ids, same).byte_arrays(ids, always(event))), false);
  }
  std::pair<std::uint64_t, std::uint64_t> counts() { return connection_->take_counts(); }

 private:
  void send(const PgStatement& statement, PgParams params, bool each) {
    connection_->send(statement, std::move(params));
    if (each) finish();
  }
  const BareRows rows_;
  std::unique_ptr<PgConnection> connection_;
};

void prepare_database(const std::string& url) {
  if (next_id == 0) next_id = RealClock().wall().time_since_epoch().count() << 20 | std::int64_t{1} << 62;
  store::PostgresOptions options;
  options.url = url;
  auto connection = PgConnection::open(options);
  if (!connection) throw std::runtime_error(connection.error().to_string());
  if (auto made = (*connection)->script("CREATE SEQUENCE IF NOT EXISTS bare_events CACHE 32"); !made)
    throw std::runtime_error(made.error().to_string());
}

}  // namespace

PostgresResult bare_commits(const std::string& url, const BareRows& rows, int connections, double seconds, bool pipelined) {
  prepare_database(url);
  std::mutex mutex;
  std::vector<double> latencies;
  std::uint64_t statements = 0, round_trips = 0;
  std::string trouble;
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < connections; ++i) clients.push_back(std::make_unique<Client>(url, rows));
  for (auto& client : clients) (void)client->counts();
  const Stopwatch watch;
  std::vector<Thread> threads;
  for (auto& client : clients)
    threads.emplace_back("bare", [&, client = client.get()] {
      std::vector<double> mine;
      try {
        while (watch.wall() < seconds) {
          const double began = watch.wall();
          client->send(kBegin);
          if (!pipelined) client->finish();
          client->send_rows(!pipelined);
          client->send(kCommit);
          client->finish();
          mine.push_back((watch.wall() - began) * 1e6);
        }
      } catch (const std::exception& error) {
        const std::scoped_lock lock(mutex);
        trouble = error.what();
      }
      const auto [s, r] = client->counts();
      const std::scoped_lock lock(mutex);
      latencies.insert(latencies.end(), mine.begin(), mine.end());
      statements += s;
      round_trips += r;
    });
  threads.clear();
  const double wall = watch.wall();
  if (!trouble.empty()) throw std::runtime_error("bare commits: " + trouble);
  const auto count = static_cast<double>(latencies.size());
  return {count / wall, percentile(latencies, 0.5), percentile(latencies, 0.99), static_cast<double>(statements) / count,
          static_cast<double>(round_trips) / count};
}

PostgresResult bare_groups(const std::string& url, const BareRows& rows, GroupDesign design, int group, double seconds) {
  prepare_database(url);
  Client client(url, rows);
  (void)client.counts();
  std::vector<double> latencies;
  const Stopwatch watch;
  while (watch.wall() < seconds) {
    const double began = watch.wall();
    if (design == GroupDesign::one_sync) {
      // All but the last may be lost until the last is not: its flush is everyone's.
      for (int i = 0; i < group; ++i) {
        client.send(kBegin);
        if (i + 1 < group) client.send(kAsync);
        client.send_rows(false);
        client.send(kCommit);
      }
    } else {
      client.send(kBegin);
      if (design == GroupDesign::multi_row) client.send_group(group);
      for (int i = 0; i < group && design == GroupDesign::savepoints; ++i) {
        client.send(kSavepoint);
        client.send_rows(false);
        client.send(kRelease);
      }
      client.send(kCommit);
    }
    client.finish();
    latencies.push_back((watch.wall() - began) * 1e6);
  }
  const double wall = watch.wall();
  const auto [statements, round_trips] = client.counts();
  const double count = static_cast<double>(latencies.size()) * group;
  return {count / wall, percentile(latencies, 0.5), percentile(latencies, 0.99), static_cast<double>(statements) / count,
          static_cast<double>(round_trips) / count};
}

}  // namespace sluice::bench
