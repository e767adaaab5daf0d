// Opening a connection: every host of the address is tried at once, and the first that takes writes
// is the one. One after the other would never get past a host that is frozen or cut off.
#include <poll.h>
#include <unistd.h>

#include <algorithm>

#include "store/postgres/connection.hpp"
#include "store/postgres/failures.hpp"
#include "store/postgres/refused_login.hpp"

namespace sluice::store {
namespace {

struct FreeOptions {
  void operator()(PQconninfoOption* o) const noexcept { PQconninfoFree(o); }
};
using Parsed = std::unique_ptr<PQconninfoOption, FreeOptions>;

Result<Parsed> parse(const std::string& url) {
  char* raw_error = nullptr;
  Parsed parsed(PQconninfoParse(url.c_str(), &raw_error));
  // libpq's message may quote the address with its password, so it is not passed on.
  PQfreemem(raw_error);
  if (!parsed)
    return fail(FailureKind::invalid_argument, "store_address",
                "the store's address is not one that libpq reads; expected "
                "postgres://user:password@host:5432/database?sslmode=verify-full");
  return parsed;
}

// Defaults that make a dead server or a cut wire noticed in seconds; the address may say otherwise.
constexpr std::pair<const char*, const char*> kDefaults[] = {
    {"client_encoding", "UTF8"},    {"target_session_attrs", "read-write"},
    {"keepalives_idle", "5"},       {"keepalives_interval", "2"}, {"keepalives_count", "3"},
    {"tcp_user_timeout", "8000"},
};

// In pg_stat_activity a node is to be told from the others: by its host and process.
std::string application_name() {
  char host[48] = {};
  if (gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
  return "sluice@" + std::string(host) + "/" + std::to_string(getpid());
}

constexpr std::size_t kMaxHosts = 16;

using Words = std::vector<std::pair<std::string, std::string>>;

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts(1);
  for (const char c : list)
    if (c == ',')
      parts.emplace_back();
    else
      parts.back() += c;
  return parts;
}

// The address, once for each of its hosts.
std::vector<Words> targets(const Words& words) {
  const auto list = [&](std::string_view name) -> std::vector<std::string> {
    for (const auto& [n, v] : words)
      if (n == name) return split(v);
    return {};
  };
  const std::vector<std::string> lists[] = {list("host"), list("hostaddr"), list("port")};
  const std::size_t hosts = std::max(lists[0].size(), lists[1].size());
  // Lists that do not match are libpq's to refuse.
  for (const auto& some : lists)
    if (hosts < 2 || hosts > kMaxHosts || (some.size() > 1 && some.size() != hosts)) return {words};
  std::vector<Words> all(hosts, words);
  for (std::size_t i = 0; i < hosts; ++i)
    for (auto& [name, value] : all[i])
      for (std::size_t l = 0; l < 3; ++l)
        if (name == (l == 0 ? "host" : l == 1 ? "hostaddr" : "port") && lists[l].size() == hosts) value = lists[l][i];
  return all;
}

struct ClosePg {
  void operator()(PGconn* c) const noexcept { PQfinish(c); }
};

struct Attempt {
  std::unique_ptr<PGconn, ClosePg> pg;
  PostgresPollingStatusType state = PGRES_POLLING_WRITING;
  bool over() const { return PQstatus(pg.get()) == CONNECTION_BAD || state == PGRES_POLLING_FAILED || state == PGRES_POLLING_OK; }
  bool connected() const { return over() && PQstatus(pg.get()) == CONNECTION_OK; }
  std::string where() const {
    const auto text = [](const char* s) { return s != nullptr ? std::string(s) : std::string(); };
    return text(PQhost(pg.get())) + ":" + text(PQport(pg.get())) + "/" + text(PQdb(pg.get()));
  }
};

Failure none_served(const std::vector<Attempt>& attempts, milliseconds timeout) {
  std::string where, said, verbose;
  bool silent = false;
  for (const auto& attempt : attempts) {
    verbose += PQerrorMessage(attempt.pg.get()) + std::string("\n");
    std::string text = words_of(PQerrorMessage(attempt.pg.get()));
    silent = silent || !attempt.over();
    if (!attempt.over()) text = "no connection within " + std::to_string(timeout.count()) + " ms";
    where += (where.empty() ? "" : ", ") + attempt.where();
    said += (said.empty() ? "" : "; ") + (attempts.size() > 1 && !attempt.over() ? attempt.where() + ": " : "") + text;
  }
  // One that says nothing may be the one that would serve.
  if (silent)
    return Failure(FailureKind::unavailable, "database_unreachable", "PostgreSQL at " + where + ": " + said + "; it will be tried again")
        .with_retry_after(seconds(1));
  return postgres_failure(sqlstate_of(verbose), said, where);
}

}  // namespace

Result<std::unique_ptr<PgConnection>> PgConnection::open(const PostgresOptions& options) {
  SLUICE_ASSIGN(const Parsed parsed, parse(options.url));
  Words words;
  for (const PQconninfoOption* o = parsed.get(); o->keyword != nullptr; ++o)
    if (o->val != nullptr) words.emplace_back(o->keyword, o->val);
  for (const auto& [name, value] : kDefaults)
    if (std::ranges::none_of(words, [&](const auto& w) { return w.first == name; })) words.emplace_back(name, value);
  if (std::ranges::none_of(words, [](const auto& w) { return w.first == "application_name"; }))
    words.emplace_back("application_name", application_name());
  std::vector<Attempt> attempts;
  for (const Words& target : targets(words)) {
    std::vector<const char*> names, values;
    for (const auto& [name, value] : target) {
      names.push_back(name.c_str());
      values.push_back(value.c_str());
    }
    names.push_back(nullptr);
    values.push_back(nullptr);
    attempts.emplace_back().pg.reset(PQconnectStartParams(names.data(), values.data(), 0));
    if (!attempts.back().pg) return fail(FailureKind::overloaded, "out_of_memory", "connecting to PostgreSQL: out of memory");
    PQsetErrorVerbosity(attempts.back().pg.get(), PQERRORS_VERBOSE);  // the only way to a refusal's code
    // What is remarked on the way, as of a collation's version, would go to stderr, among the logs.
    PQsetNoticeReceiver(attempts.back().pg.get(), [](void*, const PGresult*) {}, nullptr);
  }
  RealClock clock;
  const Instant until = clock.now() + options.connect_timeout;
  while (true) {
    std::vector<pollfd> fds;
    for (auto& attempt : attempts) {
      if (attempt.connected()) {
        PQsetErrorVerbosity(attempt.pg.get(), PQERRORS_DEFAULT);
        std::unique_ptr<PgConnection> connection(new PgConnection(Raw(attempt.pg.release()), options));
        PQsetnonblocking(connection->raw_.get(), 1);
        PQsetNoticeReceiver(connection->raw_.get(), &PgConnection::notice, connection.get());
        return connection;
      }
      if (!attempt.over())
        fds.push_back({PQsocket(attempt.pg.get()), static_cast<short>(attempt.state == PGRES_POLLING_READING ? POLLIN : POLLOUT), 0});
    }
    const auto left = std::chrono::ceil<milliseconds>(until - clock.now());
    if (fds.empty() || left.count() <= 0) return fail(none_served(attempts, options.connect_timeout));
    poll(fds.data(), fds.size(), static_cast<int>(std::min<std::int64_t>(left.count(), 60'000)));
    std::size_t at = 0;
    for (auto& attempt : attempts)
      if (!attempt.over() && fds[at++].revents != 0) attempt.state = PQconnectPoll(attempt.pg.get());
  }
}

}  // namespace sluice::store
