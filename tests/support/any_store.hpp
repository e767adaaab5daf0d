// The store under a suite: memory, or with SLUICE_TEST_STORE=sqlite|postgres a database, made to answer
// like memory, at once, so that the lane and its virtual time stay in the test's hand.
#pragma once
#include <cstdlib>

#include "sluice/base/runtime.hpp"
#include "sluice/store/memory.hpp"
#include "sluice/store/postgres.hpp"
#include "sluice/store/sqlite.hpp"
#include "support/private_postgres.hpp"
#include "support/temp_folder.hpp"

namespace sluice::testing_support {

class PromptStore final : public store::Store {
 public:
  PromptStore(bool postgres, Clock& clock, Random& random) {
    if (postgres) {
      auto& server = PrivatePostgres::quick();
      store::PostgresOptions options;
      options.url = server.socket_url(server.new_database());
      options.lazy_delay = milliseconds(0);
      options.clock = &clock;
      options.max_readers = 1;
      auto opened = store::open_postgres_store(std::move(options), real_, random, executor_);
      if (!opened) throw std::runtime_error(opened.error().to_string());
      inner_ = std::move(*opened);
    } else {
      store::SqliteOptions options;
      options.path = folder_.file("store.db");
      options.lazy_delay = milliseconds(0);
      auto opened = store::open_sqlite_store(std::move(options), clock, random, executor_);
      if (!opened) throw std::runtime_error(opened.error().to_string());
      inner_ = std::move(*opened);
    }
  }
  void submit(store::PendingCommit& pending) override {
    // The store sets tokens in the Commit's own rows, and its owner looks there.
    struct Waiting : store::PendingCommit {
      Parker done;
    } waiting;
    waiting.commit = std::move(pending.commit);
    waiting.run = [](Job* job) noexcept { static_cast<Waiting*>(static_cast<store::PendingCommit*>(job))->done.wake(); };
    inner_->submit(waiting);
    waiting.done.park();
    pending.commit = std::move(waiting.commit);
    pending.outcome = std::move(waiting.outcome);
    if (pending.lane != nullptr)
      pending.lane->post(pending);
    else
      pending.run(&pending);
  }
  bool ask(store::PendingQuery& pending) override {
    pending.answer = store::ask_and_wait(*inner_, pending.query);
    return true;
  }
  WallTime now() override { return inner_->now(); }
  std::uint64_t incarnation() const override { return inner_->incarnation(); }
  std::uint64_t largest_id() override { return inner_->largest_id(); }
  void set_expander(store::Expander* e) override { inner_->set_expander(e); }
  Result<store::PurgeResult> purge(milliseconds keep, std::size_t limit) override { return inner_->purge(keep, limit); }
  store::StoreStats stats() const override { return inner_->stats(); }
  Status health() override { return inner_->health(); }
  void close() override { inner_->close(); }

 private:
  RealClock real_;
  RealExecutor executor_{real_};
  TempFolder folder_;
  std::unique_ptr<store::Store> inner_;
};

inline std::unique_ptr<store::Store> make_any_store(Clock& clock, Random& random) {
  const char* const kind = std::getenv("SLUICE_TEST_STORE");
  if (kind == nullptr) return store::make_memory_store(clock, random);
  return std::make_unique<PromptStore>(std::string_view(kind) == "postgres", clock, random);
}

}  // namespace sluice::testing_support
