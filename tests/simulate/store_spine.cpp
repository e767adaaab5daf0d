#include "simulate/database.hpp"
#include "sluice/store/memory.hpp"
#include "sluice/store/sqlite.hpp"

namespace sluice::simulate {

store::KvKey account_row(std::uint32_t account) {
  return {std::string(kApp), "accounts", "a" + std::to_string(account)};
}
store::KvKey effect_row(const std::string& key) { return {std::string(kApp), "effects", key}; }

Result<std::unique_ptr<store::Store>> open_store(World& world, Backing backing) {
  if (backing == Backing::sqlite) {
    store::SqliteOptions options;
    options.path = "bank.db";
    options.files = &world.files;
    options.checkpoint_pages = 8 + world.random.below(200);
    options.max_group = 1 + world.random.below(32);
    auto opened = store::open_sqlite_store(options, world.clock, world.random, world.scheduler);
    if (!opened) return fail(std::move(opened).error());
    return std::move(*opened);
  }
  if (backing == Backing::memory) return store::make_memory_store(world.clock, world.random);
  if (!world.database) world.database = store::make_memory_store(world.clock, world.random);
  if (world.faults.fires("database.down")) return fail(FailureKind::unavailable, "database_down", "the database refuses connections");
  return std::make_unique<DatabaseLink>(world);
}

std::string_view to_string(Backing backing) noexcept {
  return backing == Backing::memory ? "memory" : backing == Backing::sqlite ? "sqlite" : "database";
}
std::optional<Backing> backing_named(std::string_view name) noexcept {
  for (const Backing one : {Backing::memory, Backing::sqlite, Backing::database})
    if (to_string(one) == name) return one;
  return std::nullopt;
}

Task<Status> open_accounts(store::Store& store) {
  store::Commit commit;
  for (std::uint32_t account = 0; account < kAccounts; ++account) {
    if (account == 0) {
      store::KvVersionIs absent{account_row(account), 0};
      commit.requires_.push_back({absent, "accounts_absent", -1});
    }
    commit.then.push_back(store::KvAdd{account_row(account), kOpeningBalance});
  }
  store::CommitAwaiter awaiter(store, std::move(commit));
  Result<store::CommitOutcome> outcome = co_await awaiter;
  if (!outcome) co_return fail(std::move(outcome).error());
  co_return Status{};
}

namespace {

constexpr milliseconds kKeyTtl = std::chrono::hours(24);

class StoreSpine final : public Spine {
 public:
  StoreSpine(World& world, std::unique_ptr<store::Store> store)
      : ids_(world.clock, 1), store_(std::move(store)) {
    ids_.advance_past(store_->largest_id());
  }
  store::Store& store() override { return *store_; }
  Task<Status> recover() override { return open_accounts(*store_); }
  bool settled() override { return true; }
  void crash() noexcept override {
    store_->close();
    store_.reset();
  }

  Task<Answer> handle(Operation operation) override {
    const Bytes scope = "transfer/" + operation.key;
    store::QueryAwaiter<store::FindKey> find(*store_, store::FindKey{scope});
    Result<store::FindKey::Answer> known = co_await find;
    if (known && *known) co_return replay(**known);

    store::CommitAwaiter awaiter(*store_, commit_for(operation, scope));
    Result<store::CommitOutcome> outcome = co_await awaiter;
    Answer answer;
    if (!outcome) {
      answer.failure = outcome.error().kind();
      const bool nothing = outcome.error().kind() == FailureKind::unavailable ||
                           outcome.error().kind() == FailureKind::overloaded;
      answer.kind = nothing ? Answer::Kind::released : Answer::Kind::unsettled;
      co_return answer;
    }
    if (outcome->applied || outcome->refused == 1) {
      // What is told must be what was stored: read it back.
      store::QueryAwaiter<store::FindKey> again(*store_, store::FindKey{scope});
      Result<store::FindKey::Answer> stored = co_await again;
      if (stored && *stored) answer = replay(**stored);
      co_return answer;
    }
    if (outcome->key) co_return replay(*outcome->key);
    co_return answer;
  }

 private:
  static Answer replay(const store::KeyRow& row) {
    Answer answer;
    answer.reply = row.reply;
    answer.replayed = true;
    const auto reply = Reply::decode(row.reply);
    SLUICE_ASSERT(reply.has_value(), "a stored reply does not decode");
    answer.kind =
        reply->kind == FailureKind::none ? Answer::Kind::committed : Answer::Kind::declined;
    return answer;
  }

  store::Commit commit_for(const Operation& operation, const Bytes& scope) {
    store::KeyRow row;
    row.exchange = ids_.exchange();
    row.scope = scope;
    row.state = store::KeyState::completed;
    store::Commit commit;
    store::KeyFree free{scope};
    store::KvAtLeast covered{account_row(operation.from), operation.amount};
    commit.requires_.push_back({free, "idempotency_key", -1});
    commit.requires_.push_back({covered, "insufficient", 0});
    // The exchange id in the body makes two runs of one key tell different replies.
    row.reply = Reply::ok("moved " + to_string(row.exchange)).encode();
    commit.then.push_back(store::KvAdd{account_row(operation.from), -operation.amount});
    commit.then.push_back(store::KvAdd{account_row(operation.to), operation.amount});
    commit.then.push_back(store::KvAdd{effect_row(operation.key), 1});
    commit.then.push_back(store::KeyPut{row, kKeyTtl});
    row.reply = Reply::from(Failure(FailureKind::precondition_failed, "insufficient",
                                    to_string(row.exchange)))
                    .encode();
    commit.otherwise.push_back({store::KeyPut{row, kKeyTtl}});
    return commit;
  }

  IdSource ids_;
  std::unique_ptr<store::Store> store_;
};

}  // namespace

Result<std::unique_ptr<Spine>> make_store_spine(World& world, Lane&, Backing backing) {
  SLUICE_ASSIGN(std::unique_ptr<store::Store> opened, open_store(world, backing));
  return std::make_unique<StoreSpine>(world, std::move(opened));
}

}  // namespace sluice::simulate
