// The node's side of its row among the writers: a number, a life, a lease that is renewed, and who else lives.
#include "store/postgres/group_commit.hpp"
#include "store/postgres/failures.hpp"
#include "store/postgres/plans.hpp"
#include "store/postgres/schema.hpp"

namespace sluice::store {
namespace {

// Shut out where the last group that was told to be durable is not there, as a group is.
constexpr PgStatement kBeat{"beat",
                            "SELECT number, standing, now FROM sluice.beat($1::bigint, CASE WHEN (SELECT w.last FROM sluice.writers w "
                            "WHERE w.writer = $1::bigint) < $3::bigint THEN -1 ELSE $2::bigint END)"};
// To the next of the living by its number, and round again; nobody changes where there is none.
constexpr const char* kPassOn =
    "UPDATE sluice.writers d SET adopter = a.writer FROM (SELECT x.writer FROM sluice.writers x WHERE x.writer <> $1::bigint "
    "AND x.expires_at > sluice.now_ms() AND x.node IS NOT NULL ORDER BY x.node <= $2::bigint, x.node LIMIT 1) a "
    "WHERE d.node = $3::bigint AND d.adopter = $1::bigint AND d.expires_at <= sluice.now_ms()";

}  // namespace

// Takes a number, and a new life: what an old one may still send is shut out.
Status PgGroupCommit::join() {
  bool shut_out = false;
  if (node() != 0) {
    if (Status suits = check_postgres_suits(*connection_); !suits) {
      if (suits.error().code() == "schema_too_new") close(suits.error());
      return suits;
    }
    SLUICE_ASSIGN(const PgRows known, connection_->run("SELECT last, epoch FROM sluice.writers WHERE writer = $1::bigint",
                                                       std::move(PgParams().integer(writer_))));
    if (known.size() == 0 || known.integer(0, 0) < written_) {
      close(database_went_back());
      return fail(database_went_back());
    }
    shut_out = known.integer(0, 1) != epoch_;
  }
  SLUICE_ASSIGN(const PgRows rows,
                connection_->transact("SELECT epoch, node, now, adopted FROM sluice.join_nodes($1::bigint, $2::bigint, $3::bigint, "
                                 "$4::bigint, NULLIF($5::bigint, 0))",
                                 std::move(PgParams().integer(writer_).integer(epoch_).integer(group_).integer(
                                     options_.lease.count()).integer(node()))));
  if (rows.null(0, 1)) {
    // Adopted, and not everything of it is finished yet: the adopter's work is not disturbed.
    if (node() != 0 && rows.integer(0, 3) != 0)
      return fail(Failure(FailureKind::unavailable, "node_adopted",
                          "another node is finishing what this one left when it stood still; it joins again after that")
                      .with_retry_after(seconds(1)));
    Failure taken(FailureKind::unavailable, "node_number_taken",
                  node() == 0 ? std::string("all 1023 numbers of nodes are in use; see sluice.writers")
                              : "this node stood still for so long that its number " + std::to_string(node()) +
                                    " is another's now; restart it");
    // Ids made from here on could be the other's too.
    if (node() != 0) close(taken);
    return fail(std::move(taken));
  }
  epoch_ = rows.integer(0, 0);
  node_.store(static_cast<std::uint16_t>(rows.integer(0, 1)), std::memory_order_relaxed);
  store_clock_.told(rows.time(0, 2));
  last_beat_ = Instant::min();  // who lives is asked at once
  if (shut_out && options_.logger != nullptr)
    options_.logger->warn("this node had been shut out, not heard of for longer than its lease, and has joined again; what it "
                          "had open is another's", {{"node", node()}, {"lease_ms", options_.lease.count()}});
  return {};
}

// Keeps the lease, finds out who else lives, what the time is, and for health() whether the server is there.
void PgGroupCommit::beat() {
  if (clock_.now() < next_beat()) return;
  last_tried_ = clock_.now();
  Status alive = connect();
  if (alive) alive = beat_now();
  if (alive) alive = lives();
  if (!alive) {
    last_tried_ = clock_.now();
    if (connection_ && connection_->broken()) drop_connection();
    // What has not been renewed may be another's by now.
    if (last_beat_ == Instant::min() || clock_.now() >= last_beat_ + options_.lease) membership_.none();
  }
  if (!alive) note(alive.error());
}

// In trouble it is asked often, so that health comes back soon after the database does.
Instant PgGroupCommit::next_beat() const noexcept {
  const Instant again = last_tried_ + kReconnectEvery;
  if (!connection_ || troubled_.load(std::memory_order_relaxed)) return again;
  if (last_beat_ == Instant::min()) return last_beat_;
  return last_beat_ < last_tried_ ? again : last_beat_ + beat_every();
}

Status PgGroupCommit::pass_on() {
  const auto passing = membership_.passing();
  if (passing.none()) return {};
  for (std::size_t number = 0; number < passing.size(); ++number) {
    if (!passing[number]) continue;
    SLUICE_TRY(connection_->transact(
        kPassOn, std::move(PgParams().integer(writer_).integer(node()).integer(static_cast<std::int64_t>(number)))));
    membership_.passed(number);
  }
  return {};
}

Status PgGroupCommit::beat_now() {
  SLUICE_TRY(pass_on());
  connection_->send(kBegin);
  connection_->send(kPatient);
  connection_->send(kBeat, std::move(PgParams().integer(writer_).integer(epoch_).integer(written_)));
  connection_->send(kCommit);
  const auto all = connection_->finish();
  if (!all) {
    if (!connection_->broken() && connection_->in_transaction()) (void)connection_->script("ROLLBACK");
    return fail(all.error());
  }
  const PgRows& rows = all->at(2);
  if (rows.size() == 0) {
    membership_.none();
    SLUICE_TRY(join());
    return beat_now();
  }
  std::bitset<Membership::kNodes> known, ours, alive;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::size_t number = rows.number(i, 0) % Membership::kNodes;
    known.set(number);
    ours.set(number, rows.integer(i, 1) == 1);
    alive.set(number, rows.integer(i, 1) == 0);
  }
  store_clock_.told(rows.time(0, 2));
  const auto adopted = membership_.set(known, ours, alive, node());
  for (std::size_t number = 0; options_.logger != nullptr && number < adopted.size(); ++number)
    if (adopted[number])
      options_.logger->warn("a node has ended, or has not been heard of for longer than its lease; this one finishes what it "
                            "left", {{"left_by", number}, {"node", node()}});
  last_beat_ = clock_.now();
  return {};
}

void PgGroupCommit::leave() noexcept {
  if (!connection_ || connection_->broken()) return;
  (void)connection_->run("UPDATE sluice.writers SET expires_at = sluice.now_ms() WHERE writer = $1::bigint AND epoch = $2::bigint",
                         std::move(PgParams().integer(writer_).integer(epoch_)));
  connection_.reset();
}

}  // namespace sluice::store
