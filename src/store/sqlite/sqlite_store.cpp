#include "sluice/store/sqlite.hpp"

#include "store/closing.hpp"
#include "store/sqlite/files_vfs.hpp"
#include "sluice/base/runtime.hpp"
#include "store/sqlite/copy_database.hpp"
#include "store/sqlite/group_commit.hpp"
#include "store/sqlite/log_rewrite.hpp"
#include "store/sqlite/orphan_log.hpp"
#include "store/sqlite/reader_pool.hpp"
#include "store/sqlite/schema.hpp"

namespace sluice::store {
namespace {

constexpr int kWriterFlags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;

class SqliteStoreImpl final : public SqliteStore {
 public:
  SqliteStoreImpl(SqliteOptions options, Clock& clock) : options_(std::move(options)), clock_(clock) {}
  ~SqliteStoreImpl() override { close(); }

  Status open(Random& random, Executor& executor) {
    if (options_.files != nullptr)
      vfs_ = std::make_unique<FilesVfs>(*options_.files, clock_, random);
    RealFiles real;
    Files& files = options_.files != nullptr ? *options_.files : real;
    // The key index and the sequences live in this process: a second writer would not see them.
    if (options_.files == nullptr) {
      options_.path = file_itself(options_.path);
      SLUICE_ASSIGN(owner_, OwnerLock::take(options_.path));
    }
    SLUICE_TRY(refuse_orphan_log(files, options_.path));
    SLUICE_TRY(rewrite_log(files, options_.path));
    SLUICE_ASSIGN(Database handle, open_database(options_.path, kWriterFlags, vfs()));
    sqlite3* const raw = handle.get();
    sqlite3_busy_timeout(raw, 2000);
    SLUICE_TRY(configure(raw));
    SLUICE_TRY(migrate(raw));
    if (options_.verify) SLUICE_TRY(check(raw));
    SLUICE_TRY(know_the_file(raw));
    SLUICE_TRY(draw_incarnation(raw, random));
    writer_ = std::make_unique<SqliteWriter>(std::move(handle), index_, options_.max_live_keys);
    SLUICE_TRY(writer_->prepare());
    largest_id_ = writer_->largest_id();
    commits_ = std::make_unique<GroupCommit>(
        *writer_, clock_, incarnation_,
        GroupCommit::Bounds{options_.max_queue, options_.max_group, options_.lazy_delay});
    readers_ = std::make_unique<ReaderPool>(
        ReaderPool::Bounds{options_.max_readers, options_.max_reader_wait},
        [this]() -> Result<std::unique_ptr<SqliteReader>> {
          SLUICE_ASSIGN(Database reading, open_database(options_.path, SQLITE_OPEN_READONLY, vfs()));
          sqlite3_busy_timeout(reading.get(), 2000);
          return SqliteReader::open(std::move(reading), index_);
        });
    worker_ = executor.start("store-writer", [this]() noexcept { return commits_->step(); });
    return {};
  }

  void submit(PendingCommit& pending) override {
    if (const Users::Inside inside(users_); inside) {
      if (commits_->submit(pending)) worker_->wake();
      return;
    }
    pending.outcome = fail(store_closed());
    GroupCommit::answer_one(pending);
  }
  bool ask(PendingQuery& pending) override {
    if (const Users::Inside inside(users_); inside)
      pending.answer = readers_->answer(pending.query, clock_.wall());
    else
      pending.answer = fail(store_closed());
    return true;
  }
  WallTime now() override { return clock_.wall(); }
  std::uint64_t incarnation() const override { return incarnation_; }
  std::uint64_t largest_id() override { return largest_id_; }
  void set_expander(Expander* expander) override { commits_->set_expander(expander); }
  StoreStats stats() const override {
    StoreStats stats = commits_->stats();
    stats.live_keys = index_.size();
    return stats;
  }
  // Callers are kept away by it, so it tries now and then itself whether a write succeeds again.
  Status health() override {
    const Users::Inside inside(users_);
    if (inside && commits_->wants_probe() && !probe_.under_way.exchange(true)) {
      probe_.commit = {};
      probe_.commit.then.emplace_back(KvPut{{"sluice", "health", "written"}, {}, {}});
      probe_.run = [](Job* job) noexcept { static_cast<Probe*>(job)->under_way.store(false); };
      if (commits_->submit(probe_)) worker_->wake();
    }
    return commits_->health();
  }

  Result<PurgeResult> purge(milliseconds keep, std::size_t limit) override {
    SLUICE_TRY(commits_->closed());
    return commits_->exclusively([&]() -> Result<PurgeResult> {
      SLUICE_TRY(writer_->begin());
      const WallTime now = clock_.wall();
      auto result = writer_->purge(now, now - keep, limit);
      const Status committed = result ? commits_->finish_transaction() : Status{};
      if (!result || !committed) {
        writer_->rollback();
        return fail(result ? committed.error() : result.error());
      }
      return result;
    });
  }

  Status backup(const std::string& path) override {
    RealFiles real;
    return copy_database(options_.files != nullptr ? *options_.files : real, options_.path, path, vfs(), {});
  }

  bool of_another_file() const override { return of_another_file_; }

  Status integrity_check() override {
    SLUICE_ASSIGN(Database handle, open_database(options_.path, SQLITE_OPEN_READONLY, vfs()));
    return check(handle.get());
  }

  void close() override {
    if (!commits_) return;
    users_.shut_out();
    end_commits(*commits_, worker_);
    readers_->clear();
  }

 private:
  const char* vfs() const noexcept { return vfs_ ? vfs_->name() : nullptr; }

  Status configure(sqlite3* handle) {
    // EXTRA until the log is in place: the rollback journal of the very first transaction must be
    // gone for good, or a crash may bring it back and undo what the log acknowledged since.
    const std::string sql =
        "PRAGMA synchronous=EXTRA; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=OFF;"
        "PRAGMA temp_store=MEMORY; PRAGMA wal_autocheckpoint=" +
        std::to_string(options_.checkpoint_pages) + "; PRAGMA cache_size=-" +
        std::to_string(options_.cache_mib * 1024) + ";";
    return execute(handle, sql.c_str());
  }

  Status check(sqlite3* handle) {
    SLUICE_ASSIGN(Statement statement, Statement::prepare(handle, "PRAGMA integrity_check(10)"));
    std::string findings;
    while (true) {
      SLUICE_ASSIGN(const bool row, statement.step());
      if (!row) break;
      findings += (findings.empty() ? "" : "; ") + statement.bytes(0);
    }
    if (findings == "ok") return {};
    return fail(FailureKind::corrupt, "integrity",
                "checking " + options_.path + ": " + findings +
                    "; keep the files, restore a backup, see docs/operations.md");
  }

  // A copy is another life of the store, whoever made it: leases and fences of the other mean nothing here.
  Status know_the_file(sqlite3* handle) {
    const std::int64_t file = options_.files == nullptr ? identity_of(options_.path) : 0;
    SLUICE_ASSIGN(Statement get, Statement::prepare(handle, "SELECT value FROM meta WHERE name='file'"));
    SLUICE_ASSIGN(const bool known, get.step());
    const bool another = known && file != 0 && get.integer(0) != file;
    const bool same = known && !another;
    get.reset();
    of_another_file_ = another || options_.restored;
    if (file == 0 || same) return of_another_file_ ? execute(handle, "DELETE FROM meta WHERE name='incarnation'") : Status{};
    SLUICE_TRY(execute(handle, of_another_file_ ? "BEGIN IMMEDIATE; DELETE FROM meta WHERE name='incarnation'" : "BEGIN IMMEDIATE"));
    SLUICE_ASSIGN(Statement put, Statement::prepare(handle, "INSERT OR REPLACE INTO meta VALUES ('file', ?1)"));
    SLUICE_TRY(put.bind(1, file).run());
    return execute(handle, "COMMIT");
  }

  Status draw_incarnation(sqlite3* handle, Random& random) {
    SLUICE_ASSIGN(Statement put, Statement::prepare(handle, "INSERT OR IGNORE INTO meta VALUES ('incarnation', ?1)"));
    SLUICE_TRY(put.bind(1, static_cast<std::int64_t>(random.next() >> 1 | 1)).run());
    SLUICE_ASSIGN(Statement get, Statement::prepare(handle, "SELECT value FROM meta WHERE name='incarnation'"));
    SLUICE_TRY(get.step());
    incarnation_ = static_cast<std::uint64_t>(get.integer(0));
    return {};
  }

  SqliteOptions options_;
  Clock& clock_;
  std::unique_ptr<FilesVfs> vfs_;  // before every connection
  struct Probe : PendingCommit {
    std::atomic<bool> under_way{false};
  };
  Probe probe_;
  KeyIndex index_;
  OwnerLock owner_;
  bool of_another_file_ = false;
  std::uint64_t incarnation_ = 0;
  std::uint64_t largest_id_ = 0;
  std::unique_ptr<SqliteWriter> writer_;
  std::unique_ptr<GroupCommit> commits_;
  std::unique_ptr<ReaderPool> readers_;
  std::unique_ptr<Worker> worker_;
  Users users_;
};

}  // namespace

Result<std::unique_ptr<SqliteStore>> open_sqlite_store(SqliteOptions options, Clock& clock,
                                                       Random& random, Executor& executor) {
  // Several connections share the database: SQLite's private names would give each one of its own.
  if (options.path.empty() || options.path.starts_with(":") || options.path.starts_with("file:"))
    return fail(FailureKind::invalid_argument, "bad_store_path",
                "store '" + options.path + "': expected the path of a database file; a store in memory is gone with its process");
  auto store = std::make_unique<SqliteStoreImpl>(std::move(options), clock);
  SLUICE_TRY(store->open(random, executor));
  return std::unique_ptr<SqliteStore>(std::move(store));
}

}  // namespace sluice::store
