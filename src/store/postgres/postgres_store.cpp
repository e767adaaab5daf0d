#include <atomic>

#include "store/closing.hpp"
#include "store/postgres/failures.hpp"
#include "store/postgres/incarnation.hpp"
#include "store/postgres/purge.hpp"
#include "store/postgres/reader.hpp"
#include "store/postgres/schema.hpp"

namespace sluice::store {
namespace {

class PostgresStoreImpl final : public PostgresStore {
 public:
  PostgresStoreImpl(PostgresOptions options, Clock& clock)
      : options_(std::move(options)), clock_(clock), store_clock_(clock, options_.clock), queries_(options_.max_queue) {}
  ~PostgresStoreImpl() override { close(); }

  Status open(Random& random, Executor& executor) {
    SLUICE_ASSIGN(auto connection, PgConnection::open(options_));
    connection->set_timeout(seconds(60));
    SLUICE_TRY(options_.migrate ? migrate_postgres(*connection) : check_postgres_schema(*connection));
    SLUICE_ASSIGN(const Incarnation known, know_incarnation(*connection, random));
    incarnation_ = known.value;
    of_another_database_ = known.another;
    connection->set_timeout(options_.io_timeout);
    commits_ = std::make_unique<PgGroupCommit>(options_, clock_, store_clock_, random.next(), incarnation_);
    SLUICE_TRY(commits_->start(std::move(connection)));
    // After the number is taken: whoever had it before makes no ids any more that are kept.
    SLUICE_ASSIGN(auto reading, PgConnection::open(options_));
    reading->set_timeout(seconds(60));
    SLUICE_ASSIGN(largest_id_, read_largest_id(*reading));
    writer_ = executor.start("store-writer", [this]() noexcept { return commits_->step(); });
    for (std::size_t i = 0; i < std::max<std::size_t>(1, options_.max_readers); ++i) {
      auto& reader = *readers_.emplace_back(std::make_unique<PgReader>(options_, clock_, store_clock_, queries_, *commits_));
      reading_.push_back(executor.start("store-reader", [&reader]() noexcept { return reader.step(); }));
    }
    return {};
  }

  void submit(PendingCommit& pending) override {
    if (const Users::Inside inside(users_); inside) {
      if (commits_->submit(pending)) writer_->wake();
      return;
    }
    pending.outcome = fail(store_closed());
    PgGroupCommit::answer_one(pending);
  }
  bool ask(PendingQuery& pending) override {
    const Users::Inside inside(users_);
    if (!inside) {
      pending.answer = fail(store_closed());
      return true;
    }
    // What closed itself does not know this database any more, and would tell what is not so.
    if (auto closed = commits_->closed(); !closed) {
      pending.answer = fail(std::move(closed).error());
      return true;
    }
    // Once it is in the queue a reader may answer it, and its owner may be gone.
    if (queries_.push(pending)) {
      reading_[next_reader_.fetch_add(1, std::memory_order_relaxed) % reading_.size()]->wake();
      return false;
    }
    pending.answer = fail(Failure(FailureKind::overloaded, "readers_busy",
                                  "the store's readers have their bound of " + std::to_string(options_.max_queue) +
                                      " queries waiting; try again later")
                              .with_retry_after(seconds(1)));
    return true;
  }
  WallTime now() override { return store_clock_.now(); }
  std::uint64_t incarnation() const override { return incarnation_; }
  std::uint64_t largest_id() override { return largest_id_; }
  std::uint16_t node() const override { return commits_->node(); }
  bool ours(ExchangeId exchange) const override { return commits_->membership().ours(IdSource::node_of(exchange.value)); }
  std::uint64_t takeovers() const override { return commits_->membership().changes(); }
  std::size_t living() const override { return commits_->membership().living(); }
  void pass_on(std::uint16_t number) override { commits_->membership().pass_on(number); }
  void set_expander(Expander* expander) override { commits_->set_expander(expander); }
  StoreStats stats() const override { return commits_->stats(); }
  // A full disk keeps callers away, so it tries now and then itself whether a write succeeds again.
  Status health() override {
    const Users::Inside inside(users_);
    if (inside && commits_->wants_probe() && !probe_.under_way.exchange(true)) {
      probe_.commit = {};
      probe_.commit.then.emplace_back(KvPut{{"sluice", "health", "written"}, {}, {}});
      probe_.run = [](Job* job) noexcept { static_cast<Probe*>(static_cast<PendingCommit*>(job))->under_way.store(false); };
      if (commits_->submit(probe_)) writer_->wake();
    }
    return commits_->health();
  }

  Result<PurgeResult> purge(milliseconds keep, std::size_t limit) override {
    const Users::Inside inside(users_);
    if (!inside) return fail(store_closed());
    SLUICE_TRY(commits_->closed());
    const std::scoped_lock lock(purging_);
    // Between two purges its session may have been ended; doing one twice deletes no more than doing it once.
    const bool fresh = !purger_ || purger_->broken();
    SLUICE_TRY(connect_purger());
    auto result = purge_postgres(*purger_, store_clock_.now(), keep, limit);
    if (!result && !fresh && purger_->broken()) {
      SLUICE_TRY(connect_purger());
      result = purge_postgres(*purger_, store_clock_.now(), keep, limit);
    }
    if (!result && !purger_->broken() && purger_->in_transaction()) (void)purger_->script("ROLLBACK");
    if (!result && purger_->broken()) purger_->end_wait(options_);
    return result;
  }

  bool of_another_database() const override { return of_another_database_; }
  Status integrity_check() override {
    SLUICE_ASSIGN(auto connection, PgConnection::open(options_));
    connection->set_timeout(std::chrono::hours(1));
    return check_postgres_rows(*connection);
  }

  void close() override {
    if (!commits_) return;
    users_.shut_out();
    end_commits(*commits_, writer_);
    commits_->leave();
    queries_.close();
    reading_.clear();
    for (auto& reader : readers_)
      while (reader->step() != kNever) {
      }
    readers_.clear();
    const std::scoped_lock lock(purging_);
    purger_.reset();
  }

 private:
  Status connect_purger() {
    if (purger_ && !purger_->broken()) return {};
    SLUICE_ASSIGN(purger_, PgConnection::open(options_));
    return {};
  }

  struct Probe : PendingCommit {
    std::atomic<bool> under_way{false};
  };
  PostgresOptions options_;
  Clock& clock_;
  StoreClock store_clock_;
  Probe probe_;
  QueryQueue queries_;
  std::uint64_t incarnation_ = 0;
  bool of_another_database_ = false;
  std::uint64_t largest_id_ = 0;
  std::unique_ptr<PgGroupCommit> commits_;
  std::vector<std::unique_ptr<PgReader>> readers_;
  std::unique_ptr<Worker> writer_;
  std::vector<std::unique_ptr<Worker>> reading_;
  std::atomic<std::size_t> next_reader_{0};
  std::mutex purging_;
  std::unique_ptr<PgConnection> purger_;
  Users users_;
};

}  // namespace

Result<std::unique_ptr<PostgresStore>> open_postgres_store(PostgresOptions options, Clock& clock, Random& random,
                                                           Executor& executor) {
  auto store = std::make_unique<PostgresStoreImpl>(std::move(options), clock);
  if (auto opened = store->open(random, executor); !opened) return fail(at_opening(opened.error()));
  return std::unique_ptr<PostgresStore>(std::move(store));
}

}  // namespace sluice::store
