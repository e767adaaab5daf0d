#include "store/postgres/connection.hpp"

#include <poll.h>

#include <algorithm>

#include "store/postgres/failures.hpp"
#include "store/postgres/plans.hpp"

namespace sluice::store {

bool is_postgres_url(std::string_view text) noexcept {
  return text.starts_with("postgres://") || text.starts_with("postgresql://");
}

std::string without_password(std::string_view url) {
  std::string text(url);
  for (const std::string_view name : {"password=", "sslpassword="})
    for (auto at = text.find(name); at != std::string::npos; at = text.find(name, at + name.size())) {
      const auto value = at + name.size();
      auto end = text.find_first_of(value < text.size() && text[value] == '\'' ? "'" : "& ", value + 1);
      if (value < text.size() && text[value] == '\'' && end != std::string::npos) ++end;
      text.replace(value, (end == std::string::npos ? text.size() : end) - value, "***");
    }
  const auto scheme = text.find("://");
  if (scheme == std::string::npos) return text;
  const auto authority_end = text.find_first_of("/?", scheme + 3);
  // The last @: a password may hold one.
  const auto at = text.substr(0, authority_end).rfind('@');
  // A / in the password, unescaped, is no address, but it must not be shown either.
  const auto last_at = at == std::string::npos ? text.rfind('@') : at;
  if (last_at == std::string::npos) return text;
  const auto colon = text.find(':', scheme + 3);
  if (colon == std::string::npos || colon > last_at) return text;
  return text.substr(0, colon) + ":***" + text.substr(last_at);
}

// A FATAL is the session's last word. It may come after a COMMIT that is done, so it says nothing of that.
static bool ends_session(const PGresult* result) {
  const char* const severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
  return severity != nullptr && (std::string_view(severity) == "FATAL" || std::string_view(severity) == "PANIC");
}

PgConnection::PgConnection(Raw raw, const PostgresOptions& options)
    : raw_(std::move(raw)), prepare_(!options.pooled), timeout_(options.io_timeout) {
  const auto text = [](const char* s) { return s != nullptr ? std::string(s) : std::string(); };
  where_ = text(PQhost(raw_.get())) + ":" + text(PQport(raw_.get())) + "/" + text(PQdb(raw_.get()));
}

PgConnection::~PgConnection() = default;

bool PgConnection::in_transaction() const noexcept {
  const auto status = PQtransactionStatus(raw_.get());
  return status == PQTRANS_INTRANS || status == PQTRANS_INERROR;
}

// Waits until the socket is ready; false: the time is up.
bool PgConnection::wait(bool reading, bool writing, Instant until) noexcept {
  while (true) {
    const auto left = std::chrono::ceil<milliseconds>(until - clock_.now());
    if (left.count() <= 0) return false;
    pollfd fd{PQsocket(raw_.get()), static_cast<short>((reading ? POLLIN : 0) | (writing ? POLLOUT : 0)), 0};
    const int ready = poll(&fd, 1, static_cast<int>(std::min<std::int64_t>(left.count(), 60'000)));
    if (ready > 0 || (ready < 0 && errno != EINTR)) return true;
  }
}

// Notices are for people at a prompt, except one: a COMMIT whose wait for its synchronous standby was
// cancelled says so in a warning, and then succeeds. It is not durable yet in the sense promised.
void PgConnection::notice(void* self, const PGresult* result) {
  // By where it comes from: its words are in the server's language.
  const char* const from = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);
  if (from != nullptr && std::string_view(from) == "SyncRepWaitForLSN")
    static_cast<PgConnection*>(self)->unreplicated_ = true;
}

Failure PgConnection::lost(const char* what) {
  broken_ = true;
  sqlstate_.clear();
  std::string message = PQerrorMessage(raw_.get());
  while (message.ends_with('\n')) message.pop_back();
  return Failure(FailureKind::unavailable, "database_unreachable",
                 "PostgreSQL at " + where_ + ": " + what + (message.empty() ? "" : ": " + message) +
                     "; it will be tried again")
      .with_retry_after(seconds(1));
}

// What the server said before it hung up says more than that it did.
Failure PgConnection::hung_up(const std::optional<Failure>& said) {
  if (!said) return lost("reading");
  broken_ = true;
  return *said;
}

Failure PgConnection::told(PGresult* result) {
  const char* state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  const char* message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
  sqlstate_ = state != nullptr ? state : "";
  if (PQstatus(raw_.get()) == CONNECTION_BAD || sqlstate_.empty()) {
    const std::string kept = sqlstate_;
    Failure failure = lost("the connection was lost");
    if (kept.empty()) return failure;
    sqlstate_ = kept;
  }
  return postgres_failure(sqlstate_, message != nullptr ? message : PQresultErrorMessage(result), where_);
}

void PgConnection::send(const PgStatement& statement, PgParams params) {
  if (broken_ || send_failed_) return;
  if (PQpipelineStatus(raw_.get()) == PQ_PIPELINE_OFF && PQenterPipelineMode(raw_.get()) == 0) {
    send_failed_ = lost("entering pipeline mode");
    return;
  }
  ++statements_;
  const int count = static_cast<int>(params.count());
  bool sent = true;
  if (!prepare_) {
    sent = PQsendQueryParams(raw_.get(), statement.sql, count, params.types(), params.values(), params.lengths(),
                             params.formats(), 1) != 0;
  } else {
    if (!prepared_.contains(&statement)) {
      sent = PQsendPrepare(raw_.get(), statement.name, statement.sql, count, params.types()) != 0;
      sent_.push_back(&statement);
      prepared_.insert(&statement);  // taken back in finish() when it did not run
    }
    sent = sent && PQsendQueryPrepared(raw_.get(), statement.name, count, params.values(), params.lengths(),
                                       params.formats(), 1) != 0;
  }
  sent_.push_back(nullptr);
  if (!sent) send_failed_ = lost("sending");
}

Result<std::vector<PgRows>> PgConnection::finish() {
  std::vector<const PgStatement*> sent = std::exchange(sent_, {});
  if (auto failed = std::exchange(send_failed_, std::nullopt)) return fail(*std::move(failed));
  if (broken_) return fail(lost("the connection was lost"));
  if (PQpipelineStatus(raw_.get()) == PQ_PIPELINE_OFF && PQenterPipelineMode(raw_.get()) == 0)
    return fail(lost("entering pipeline mode"));
  if (PQpipelineSync(raw_.get()) == 0) return fail(lost("sending"));
  ++round_trips_;
  const Instant until = clock_.now() + timeout_;
  std::vector<PgRows> all;
  std::optional<Failure> failed;
  std::string failed_state;
  for (std::size_t at = 0;;) {
    // What the server says is read while we still send, or both sides might wait for each other.
    const int unsent = PQflush(raw_.get());
    if (unsent < 0) return fail(lost("sending"));
    if (PQisBusy(raw_.get()) != 0) {
      if (!wait(true, unsent == 1, until)) return fail(lost("no answer in time"));
      if (PQconsumeInput(raw_.get()) == 0) return fail(hung_up(failed));
      continue;
    }
    PGresult* const raw = PQgetResult(raw_.get());
    if (raw == nullptr) {
      if (PQstatus(raw_.get()) == CONNECTION_BAD) return fail(hung_up(failed));
      continue;  // the end of one statement's results
    }
    PgRows rows(raw);
    const auto status = PQresultStatus(raw);
    if (status == PGRES_PIPELINE_SYNC) break;
    const PgStatement* const preparing = at < sent.size() ? sent[at] : nullptr;
    ++at;
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) {
      if (preparing == nullptr) all.push_back(std::move(rows));
      continue;
    }
    if (preparing != nullptr) prepared_.erase(preparing);
    if (status == PGRES_PIPELINE_ABORTED) continue;
    if (!failed) {
      failed = told(raw);
      failed_state = sqlstate_;
    }
    if (ends_session(raw) || PQstatus(raw_.get()) == CONNECTION_BAD) {
      broken_ = true;
      return fail(*std::move(failed));
    }
  }
  sqlstate_ = failed_state;
  if (unreplicated_) return fail(lost("a commit was cut off from its synchronous standby"));
  if (failed) return fail(*std::move(failed));
  return all;
}

Result<PgRows> PgConnection::run(const char* sql, PgParams params) {
  if (broken_) return fail(lost("the connection was lost"));
  if (PQpipelineStatus(raw_.get()) == PQ_PIPELINE_OFF && PQenterPipelineMode(raw_.get()) == 0)
    return fail(lost("entering pipeline mode"));
  const int count = static_cast<int>(params.count());
  if (PQsendQueryParams(raw_.get(), sql, count, params.types(), params.values(), params.lengths(), params.formats(), 1) == 0)
    return fail(lost("sending"));
  ++statements_;
  sent_.push_back(nullptr);
  SLUICE_ASSIGN(auto all, finish());
  return std::move(all.at(0));
}

Result<PgRows> PgConnection::transact(const char* sql, PgParams params) {
  send(kBegin);
  send(kPatient);
  if (!send_failed_) {
    if (PQsendQueryParams(raw_.get(), sql, static_cast<int>(params.count()), params.types(), params.values(),
                          params.lengths(), params.formats(), 1) == 0)
      send_failed_ = lost("sending");
    ++statements_;
    sent_.push_back(nullptr);
  }
  send(kCommit);
  auto all = finish();
  if (!all) {
    const std::string kept = sqlstate_;
    if (!broken_ && in_transaction()) (void)script("ROLLBACK");
    sqlstate_ = kept;
    return fail(std::move(all).error());
  }
  return std::move(all->at(2));
}

void PgConnection::end_wait(const PostgresOptions& options) const {
  if (options.pooled) return;
  if (auto other = open(options))
    (void)(*other)->run("SELECT pg_cancel_backend($1::bigint::integer)", std::move(PgParams().integer(backend())));
}

Status PgConnection::script(const char* sql) {
  if (broken_) return fail(lost("the connection was lost"));
  if (PQpipelineStatus(raw_.get()) != PQ_PIPELINE_OFF && PQexitPipelineMode(raw_.get()) == 0)
    return fail(lost("leaving pipeline mode"));
  if (PQsendQuery(raw_.get(), sql) == 0) return fail(lost("sending"));
  ++round_trips_;
  const Instant until = clock_.now() + timeout_;
  std::optional<Failure> failed;
  while (true) {
    const int unsent = PQflush(raw_.get());
    if (unsent < 0) return fail(lost("sending"));
    if (PQisBusy(raw_.get()) != 0) {
      if (!wait(true, unsent == 1, until)) return fail(lost("no answer in time"));
      if (PQconsumeInput(raw_.get()) == 0) return fail(hung_up(failed));
      continue;
    }
    PGresult* const raw = PQgetResult(raw_.get());
    if (raw == nullptr) break;
    const PgRows rows(raw);
    const auto status = PQresultStatus(raw);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_EMPTY_QUERY && !failed) failed = told(raw);
    if (ends_session(raw)) broken_ = true;
  }
  if (PQstatus(raw_.get()) == CONNECTION_BAD) broken_ = true;
  if (unreplicated_) return fail(lost("a commit was cut off from its synchronous standby"));
  if (failed) return fail(*std::move(failed));
  return {};
}

}  // namespace sluice::store
