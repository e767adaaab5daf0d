#include "store/postgres/group_commit.hpp"

#include "store/postgres/failures.hpp"
#include "store/postgres/group_writer.hpp"
#include "store/postgres/plans.hpp"
#include "store/postgres/row_codec.hpp"

namespace sluice::store {
namespace {

// An epoch that never was, where the last group that was told to be durable is not there: the writer is shut out then.
constexpr PgStatement kBeginGroup{
    "begin_group",
    "SELECT sluice.begin_group($1::bigint, CASE WHEN (SELECT w.last FROM sluice.writers w WHERE w.writer = $1::bigint) < $6::bigint "
    "THEN -1 ELSE $2::bigint END, $3::bigint, $4::boolean, NULLIF($5::bigint, 0)), "
    "set_config('client_min_messages', 'warning', true)"};  // or a wait for a standby that was cut short would go unsaid

// Rows that no index can hold would refuse the whole group; they are found before.
constexpr std::size_t kMaxKvKey = 2000, kMaxName = 1000;

Status check_sizes(const std::vector<Mutation>& mutations) {
  for (const auto& mutation : mutations) {
    const KvKey* key = nullptr;
    std::size_t name = 0;
    if (const auto* put = std::get_if<KvPut>(&mutation)) key = &put->key;
    if (const auto* add = std::get_if<KvAdd>(&mutation)) key = &add->key;
    if (const auto* take = std::get_if<LeaseTake>(&mutation)) name = take->lease.size();
    if (const auto* event = std::get_if<EventAppend>(&mutation)) name = event->row.ns.size();
    const std::size_t size = key != nullptr ? key->ns.size() + key->collection.size() + key->key.size() : 0;
    if (size > kMaxKvKey || name > kMaxName)
      return fail(FailureKind::invalid_argument, "key_too_long",
                  "namespace, collection and key have " + std::to_string(std::max(size, name)) + " bytes; on PostgreSQL " +
                      std::to_string(size > kMaxKvKey ? kMaxKvKey : kMaxName) + " is the bound, for its indexes");
  }
  return {};
}

Status check_sizes(const Commit& commit) {
  SLUICE_TRY(check_sizes(commit.then));
  for (const auto& branch : commit.otherwise) SLUICE_TRY(check_sizes(branch));
  return {};
}

}  // namespace

void PgGroupCommit::answer_one(PendingCommit& pending) noexcept {
  if (pending.lane != nullptr)
    pending.lane->post(pending);
  else
    pending.run(&pending);
}

bool PgGroupCommit::submit(PendingCommit& pending) {
  Status possible = open_.load(std::memory_order_acquire) ? check_sizes(pending.commit) : closed();
  if (possible && !queue_.push(pending))
    possible = fail(Failure(FailureKind::overloaded, "store_queue_full",
                            "the store's queue holds its bound of " + std::to_string(options_.max_queue) +
                                " commits; nothing was written, try again later")
                        .with_retry_after(milliseconds(100)));
  if (possible) return true;
  pending.outcome = fail(std::move(possible).error());
  answer_one(pending);
  return false;
}

Status PgGroupCommit::start(std::unique_ptr<PgConnection> connection) {
  connection_ = std::move(connection);
  SLUICE_TRY(join());
  return beat_now();
}

Status PgGroupCommit::connect() {
  if (connection_ && !connection_->broken()) return {};
  connection_.reset();
  last_tried_ = clock_.now();
  SLUICE_ASSIGN(connection_, PgConnection::open(options_));
  const Status joined = join();
  if (!joined) connection_.reset();
  return joined;
}

void PgGroupCommit::count_traffic() noexcept {
  if (!connection_) return;
  const auto [statements, round_trips] = connection_->take_counts();
  statements_.fetch_add(statements, std::memory_order_relaxed);
  round_trips_.fetch_add(round_trips, std::memory_order_relaxed);
}

void PgGroupCommit::drop_connection() noexcept {
  count_traffic();
  connection_.reset();
}

Instant PgGroupCommit::step() noexcept {
  queue_.take(taken_);
  if (!open_.load(std::memory_order_acquire)) {
    drain();
    return kNever;
  }
  beat();
  if (taken_.empty()) return next_beat();
  bool urgent = hurry_ || taken_.size() >= options_.max_group;
  for (const auto* pending : taken_) urgent = urgent || !pending->commit.lazy;
  if (!urgent) {
    const Instant now = clock_.now();
    if (lazy_since_ == kNever) lazy_since_ = now;
    if (now < lazy_since_ + options_.lazy_delay) return lazy_since_ + options_.lazy_delay;
  }
  lazy_since_ = kNever;
  while (!taken_.empty() && open_.load(std::memory_order_acquire)) run_group(std::min(taken_.size(), options_.max_group));
  if (!taken_.empty()) drain();
  return Instant::min();  // something may have come meanwhile: look again
}

void PgGroupCommit::run_group(std::size_t count) noexcept {
  Status written = connect();
  const std::uint64_t before = groups_.load(std::memory_order_relaxed);
  if (written) written = write_group(0, count);
  // One that had nothing to write tells nothing of the database.
  if (!written) note(written.error());
  else if (groups_.load(std::memory_order_relaxed) != before && !lacks_rights()) wrote();
  if (!written)
    for (std::size_t i = 0; i < count; ++i) taken_[i]->outcome = fail(written.error());
  count_traffic();
  // Those behind would only wait for the same trouble.
  const bool down = !written && (!connection_ || written.error().code() == "node_fenced");
  answer(count);
  if (down) refuse_waiting(written.error());
}

Status PgGroupCommit::write_group(std::size_t from, std::size_t count, int attempt) {
  Status done;
  for (; attempt <= kTriesAlone; ++attempt) {
    bool again = false;
    if (attempt > 0) repeated_.fetch_add(1, std::memory_order_relaxed);
    tokenless_.clear();
    done = try_group(from, count, attempt > 0, again);
    // Evaluating has set them in place; another attempt begins as the first did.
    if (!done)
      for (auto* put : tokenless_) put->row.token = 0;
    if (done || !again) break;
    if (!connection_) SLUICE_TRY(connect());
  }
  tokenless_.clear();  // whoever owns them may be gone after the answer
  if (done || !connection_ || count == 1) return done;
  const std::string_view state = connection_->sqlstate();
  if (!fault_of_the_data(state) && !row_held_) return done;
  write_apart(from, count, done.error());
  return {};
}

// One of them cannot be stored, or wants a row that somebody who is no node holds: the others must not suffer for it.
void PgGroupCommit::write_apart(std::size_t from, std::size_t count, const Failure& why) {
  const bool held = row_held_;
  // What the group was evaluated to is nobody's answer: what is not written below must not say that it was.
  for (std::size_t i = from; i < from + count; ++i) taken_[i]->outcome = fail(why);
  const Instant until = clock_.now() + options_.lease / 2;
  int refused = 0;
  for (std::size_t i = from; i < from + count; ++i) {
    beat();  // they may take longer than the lease
    Status one = connect();
    if (!one) {  // of the rest nothing was sent, and each would only wait for the same
      for (; i < from + count; ++i) taken_[i]->outcome = fail(one.error());
      return;
    }
    // It may be the whole table that is held: enough has waited.
    if (held && (refused == kMostHeld || clock_.now() >= until)) continue;
    one = write_group(i, 1, held ? 1 : 0);
    if (one) continue;
    if (connection_ && connection_->sqlstate() == kLockNotFree) refused = row_held_ ? refused + 1 : kMostHeld;
    taken_[i]->outcome = fail(std::move(one).error());
  }
}

Status PgGroupCommit::evaluate(std::size_t from, std::size_t count) {
  evaluator_.begin(store_clock_.now());
  evaluator_.forget_sequences();
  for (std::size_t i = from; i < from + count; ++i) {
    Commit& commit = taken_[i]->commit;
    const auto note_tokenless = [this](std::vector<Mutation>& mutations) {
      for (auto& mutation : mutations)
        if (auto* put = std::get_if<KeyPut>(&mutation); put != nullptr && put->row.token == 0) tokenless_.push_back(put);
    };
    note_tokenless(commit.then);
    for (auto& branch : commit.otherwise) note_tokenless(branch);
    taken_[i]->outcome = evaluator_.evaluate(commit);
    if (loader_.failure()) return fail(*loader_.failure());
  }
  return {};
}

// `again`: nothing was written, and trying again on fresh rows may help.
Status PgGroupCommit::try_group(std::size_t from, std::size_t count, bool alone, bool& again) {
  PgConnection& connection = *connection_;
  row_held_ = false;
  bool writing = false;
  // Ends a transaction that did not come to its COMMIT. Nothing of it counts.
  const auto failed = [&](Failure why) -> Status {
    again = worth_another_try(connection.sqlstate()) || (writing && !alone && connection.sqlstate() == kLockNotFree);
    const bool fenced = connection.sqlstate() == kWriterFenced;
    if (connection.in_transaction() && !connection.broken()) (void)connection.script("ROLLBACK");
    // What was evaluated before another node took over is not written by a later life of this one.
    if (fenced && !connection.broken() && !join()) drop_connection();
    if (!connection_) return fail(std::move(why));
    if (connection.broken() || connection.in_transaction()) {
      // Its COMMIT was not sent: a server that was restarted may be there again already.
      again = again || connection.broken();
      drop_connection();
    }
    return fail(std::move(why));
  };
  const auto begin_group = [&] {
    ++group_;
    connection.send(kBegin);
    connection.send(kBeginGroup, std::move(PgParams().integer(writer_).integer(epoch_).integer(group_).boolean(alone).integer(
                                     store_clock_.fixed() || alone ? 0 : stored(store_clock_.now())).integer(written_)));
  };
  loader_.begin(connection, alone);
  for (std::size_t i = from; i < from + count; ++i) loader_.foresee(taken_[i]->commit);
  if (alone) begin_group();
  if (loader_.send() != 0 || alone) {
    auto rows = connection.finish();
    if (!rows) return failed(std::move(rows).error());
    if (alone) store_clock_.told(rows->at(1).time(0, 0));
    if (auto got = loader_.receive(*rows, alone ? 2 : 0); !got) return failed(std::move(got).error());
  }
  if (auto evaluated = evaluate(from, count); !evaluated) return failed(std::move(evaluated).error());
  const GroupWrites& writes = evaluator_.writes();
  const bool sure = loader_.settle_writes(writes);
  if (writes.empty()) {
    if (alone) SLUICE_TRY(connection.script("ROLLBACK"));
  } else if (!alone && !sure) {
    again = true;
    return fail(FailureKind::unavailable, "database_conflict", "the group depends on rows that are not there");
  } else {
    if (!alone) begin_group();
    writing = true;
    send_group_writes(connection, writes, loader_, alone);
    connection.send(kCommit);
    auto rows = connection.finish();
    if (rows && std::string_view(rows->back().tag()) != "COMMIT")
      return failed({FailureKind::internal, "not_committed", "PostgreSQL answered COMMIT with " + std::string(rows->back().tag())});
    if (!rows && !connection.broken() && !leaves_open(connection.sqlstate())) {
      row_held_ = alone && connection.sqlstate() == kLockNotFree;  // with every other node kept out: somebody else's
      return failed(std::move(rows).error());
    }
    if (rows) {
      if (!alone) store_clock_.told(rows->at(1).time(0, 0));
    } else {
      const Failure why = std::move(rows).error();
      drop_connection();
      SLUICE_ASSIGN(const bool committed, settle(group_));
      again = !committed;  // for certain, so it may be written
      if (!committed) return fail(why);
    }
    written_ = group_;
    groups_.fetch_add(1, std::memory_order_relaxed);
  }
  commits_.fetch_add(count, std::memory_order_relaxed);
  for (std::size_t i = from; i < from + count; ++i)
    if (taken_[i]->outcome && !taken_[i]->outcome->applied) refused_.fetch_add(1, std::memory_order_relaxed);
  return {};
}

Result<bool> PgGroupCommit::settle(std::int64_t group) {
  const Instant until = clock_.now() + options_.settle_timeout;
  Failure last(FailureKind::unavailable, "database_unreachable", "not tried");
  Parker pause;
  while (true) {
    auto opened = PgConnection::open(options_);
    if (opened) {
      // Takes the row's lock: an old session that still runs the group is waited for, and one that has
      // not begun is shut out by the new epoch. This commit is durable only after the one it asks about.
      auto rows = (*opened)->transact("UPDATE sluice.writers SET epoch = epoch + 1 WHERE writer = $1::bigint RETURNING last, epoch",
                                 std::move(PgParams().integer(writer_)));
      if (rows) {
        if (rows->size() == 0)  // a database that does not know us: the next join() says so
          return fail(FailureKind::unknown_outcome, "commit_unknown", "the connection was lost during COMMIT, and the "
                      "database that answers now never had it");
        // Neither this group nor the one before it: what was acknowledged is gone, so nothing is known.
        if (rows->integer(0, 0) < written_) {
          close(database_went_back());
          return fail(FailureKind::unknown_outcome, "commit_unknown",
                      "the connection was lost during COMMIT, and the database that answers now lacks commits before it");
        }
        connection_ = std::move(*opened);
        epoch_ = rows->integer(0, 1);
        const bool committed = rows->integer(0, 0) == group;
        if (!join()) connection_.reset();
        return committed;
      }
      last = rows.error();
    } else {
      last = opened.error();
    }
    note(last);
    refuse_waiting(last);
    if (clock_.now() >= until || !open_.load(std::memory_order_acquire))
      return fail(FailureKind::unknown_outcome, "commit_unknown",
                  "the connection was lost during COMMIT and the database could not be asked since (" +
                      std::string(last.detail()) + "); look the key or the rows up before repeating");
    pause.park(kReconnectEvery);
  }
}

void PgGroupCommit::refuse_waiting(const Failure& why) noexcept {
  std::vector<PendingCommit*> waiting;
  queue_.take(waiting);
  queue_.answered(waiting.size());
  for (auto* pending : waiting) {
    // Nothing of these was sent, whatever became of the group before them.
    pending->outcome = fail(why.kind() == FailureKind::unknown_outcome
                                ? Failure(FailureKind::unavailable, "database_unreachable", std::string(why.detail()))
                                      .with_retry_after(seconds(1))
                                : why);
    answer_one(*pending);
  }
}

void PgGroupCommit::answer(std::size_t count) noexcept {
  // Counted down first: an answered Commit may be gone, and its owner may submit the next.
  queue_.answered(count);
  for (std::size_t i = 0; i < count; ++i) answer_one(*taken_[i]);
  taken_.erase(taken_.begin(), taken_.begin() + static_cast<std::ptrdiff_t>(count));
}

void PgGroupCommit::drain() noexcept {
  queue_.take(taken_);
  const Status why = closed();
  for (auto* pending : taken_)
    pending->outcome = fail(why ? Failure(FailureKind::unavailable, "store_closed", "the store is closed") : why.error());
  answer(taken_.size());
}

void PgGroupCommit::close(Failure reason) {
  const std::scoped_lock lock(state_);
  if (!closed_) closed_ = std::move(reason);
  open_.store(false, std::memory_order_release);
}

Status PgGroupCommit::closed() const {
  if (open_.load(std::memory_order_acquire)) return {};
  const std::scoped_lock lock(state_);
  if (closed_) return fail(*closed_);
  return {};
}

StoreStats PgGroupCommit::stats() const noexcept {
  StoreStats stats;
  stats.commits = commits_.load(std::memory_order_relaxed);
  stats.refused = refused_.load(std::memory_order_relaxed);
  stats.groups = groups_.load(std::memory_order_relaxed);
  stats.queued = queue_.waiting();
  stats.statements = statements_.load(std::memory_order_relaxed);
  stats.round_trips = round_trips_.load(std::memory_order_relaxed);
  stats.repeated = repeated_.load(std::memory_order_relaxed);
  return stats;
}

}  // namespace sluice::store
