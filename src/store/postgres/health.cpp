// What health() knows: the last trouble with the database, and what says that it is over.
#include "store/postgres/group_commit.hpp"
#include "store/postgres/schema.hpp"

namespace sluice::store {

// Only what says that the database is in trouble: of what it refused for a reason of its own, health knows nothing.
void PgGroupCommit::note(const Failure& why) {
  if (why.kind() != FailureKind::unavailable && why.kind() != FailureKind::forbidden &&
      why.kind() != FailureKind::unknown_outcome && why.kind() != FailureKind::corrupt)
    return;
  const std::scoped_lock lock(state_);
  trouble_ = why;
  // Of a commit it is a doubt; of the database it says that it cannot be asked, which no restart mends.
  if (why.kind() == FailureKind::unknown_outcome)
    trouble_ = Failure(FailureKind::unavailable, "database_unreachable", std::string(why.detail())).with_retry_after(seconds(1));
  trouble_at_ = clock_.now();
  troubled_.store(true, std::memory_order_relaxed);
}

void PgGroupCommit::wrote() {
  if (!troubled_.load(std::memory_order_relaxed)) return;
  const std::scoped_lock lock(state_);
  trouble_.reset();
  troubled_.store(false, std::memory_order_relaxed);
}

bool PgGroupCommit::outlives_a_heartbeat(const Failure& why) noexcept {
  return why.code() == "disk_full" || why.code() == "schema_missing" || why.code() == "database_rights";
}

bool PgGroupCommit::lacks_rights() const {
  if (!troubled_.load(std::memory_order_relaxed)) return false;
  const std::scoped_lock lock(state_);
  return trouble_ && trouble_->code() == "database_rights";
}

// The lease is a row that is there already: on a full disk it is still written, and nothing else is. Rights can be
// asked for, which is surer than one write that succeeds.
Status PgGroupCommit::lives() {
  if (!troubled_.load(std::memory_order_relaxed)) return {};
  if (lacks_rights()) {
    SLUICE_TRY(check_postgres_rights(*connection_));
  } else {
    const std::scoped_lock lock(state_);
    if (!trouble_ || outlives_a_heartbeat(*trouble_)) return {};
  }
  wrote();
  return {};
}

bool PgGroupCommit::wants_probe() const {
  const std::scoped_lock lock(state_);
  return !closed_ && trouble_ && trouble_->code() != "database_rights" && outlives_a_heartbeat(*trouble_) &&
         clock_.now() >= trouble_at_ + kProbedAfter;
}

Status PgGroupCommit::health() const {
  const std::scoped_lock lock(state_);
  if (closed_) return fail(*closed_);
  if (trouble_) return fail(*trouble_);
  return {};
}

}  // namespace sluice::store
