// The table of every configuration key. To add one: a row here; the rest follows.
#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <deque>
#include <mutex>
#include <vector>

#include "sluice/server/config.hpp"

namespace sluice::server {

namespace {

std::int64_t to_integer(const std::string& text) {
  std::int64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

template <class Member>
ConfigKey integer(std::string_view name, std::string_view meaning, std::int64_t minimum,
                  std::int64_t maximum, Member member) {
  using T = std::remove_reference_t<decltype(member(std::declval<Config&>()))>;
  return {name,
          KeyType::integer,
          meaning,
          minimum,
          maximum,
          [member](const Config& c) { return std::to_string(member(const_cast<Config&>(c))); },
          [member](Config& c, const std::string& text) {
            member(c) = static_cast<T>(to_integer(text));
            return std::string();
          }};
}
template <class Member>
ConfigKey time_ms(std::string_view name, std::string_view meaning, Member member, std::int64_t least = 1) {
  using T = std::remove_reference_t<decltype(member(std::declval<Config&>()))>;
  return {name,
          KeyType::integer,
          meaning,
          least,
          86'400'000,
          [member](const Config& c) {
            return std::to_string(
                std::chrono::duration_cast<milliseconds>(member(const_cast<Config&>(c))).count());
          },
          [member](Config& c, const std::string& text) {
            member(c) = std::chrono::duration_cast<T>(milliseconds(to_integer(text)));
            return std::string();
          }};
}
template <class Member>
ConfigKey time_s(std::string_view name, std::string_view meaning, Member member) {
  using T = std::remove_reference_t<decltype(member(std::declval<Config&>()))>;
  return {name,
          KeyType::integer,
          meaning,
          1,
          3'155'760'000,  // a hundred years
          [member](const Config& c) {
            return std::to_string(
                std::chrono::duration_cast<seconds>(member(const_cast<Config&>(c))).count());
          },
          [member](Config& c, const std::string& text) {
            member(c) = std::chrono::duration_cast<T>(seconds(to_integer(text)));
            return std::string();
          }};
}
template <class Member>
ConfigKey boolean(std::string_view name, std::string_view meaning, Member member) {
  return {name,
          KeyType::boolean,
          meaning,
          0,
          0,
          [member](const Config& c) {
            return std::string(member(const_cast<Config&>(c)) ? "true" : "false");
          },
          [member](Config& c, const std::string& text) {
            member(c) = text == "true";
            return std::string();
          }};
}
template <class Member>
ConfigKey text(std::string_view name, std::string_view meaning, Member member,
               std::vector<std::string> allowed = {}) {
  return {name,
          KeyType::text,
          meaning,
          0,
          0,
          [member](const Config& c) { return member(const_cast<Config&>(c)); },
          [member, allowed](Config& c, const std::string& value) -> std::string {
            std::string list;
            for (const auto& one : allowed) {
              if (one == value) list.clear();
              if (one == value) break;
              list += (list.empty() ? "one of " : ", ") + one;
            }
            if (list.empty()) member(c) = value;
            return list;
          }};
}

// `check`: empty when a text is good, else what was expected.
template <class Member>
ConfigKey checked(std::string_view name, std::string_view meaning, Member member, std::string (*check)(const std::string&)) {
  ConfigKey key = text(name, meaning, member);
  key.set = [member, check](Config& c, const std::string& value) {
    std::string expected = check(value);
    if (expected.empty()) member(c) = value;
    return expected;
  };
  return key;
}

// What is shown ends up in logs and tickets.
ConfigKey without_password(ConfigKey key) {
  key.get = [get = std::move(key.get)](const Config& c) { return store::without_password(get(c)); };
  return key;
}
std::string check_url(const std::string& value) {
  return value.empty() || store::is_postgres_url(value) ? "" : "an address that begins with postgres://";
}

// Names are not looked up: an address that depends on a resolver is a surprise at the next start.
bool is_ip(const std::string& text) {
  in6_addr into;
  return inet_pton(AF_INET, text.c_str(), &into) == 1 || inet_pton(AF_INET6, text.c_str(), &into) == 1;
}

std::string check_address(const std::string& value) { return is_ip(value) ? "" : "an IPv4 or IPv6 address"; }

std::string check_listen(const std::string& value) {
  const auto colon = value.rfind(':');
  const std::string port = colon == std::string::npos ? "" : value.substr(colon + 1);
  const bool number = !port.empty() && port.size() <= 5 && std::ranges::all_of(port, [](char d) { return d >= '0' && d <= '9'; });
  const bool good = value.empty() || (colon != 0 && number && to_integer(port) <= 65'535);
  return good ? "" : "host:port with a port from 0 to 65535";
}

// What happens to a message of a stream when `streams.capacity` messages run.
ConfigKey stream_policy() {
  using admission::AtCapacity;
  static constexpr std::pair<std::string_view, AtCapacity> kPolicies[] = {
      {"queue", AtCapacity::queue},
      {"hard_reject", AtCapacity::hard_reject},
      {"soft_allow", AtCapacity::soft_allow},
      {"soft_allow_with_signal", AtCapacity::soft_allow_with_signal}};
  return {"streams.policy",
          KeyType::text,
          "when streams.capacity messages run: queue, hard_reject, soft_allow, soft_allow_with_signal; the soft ones admit up "
          "to four times as many",
          0,
          0,
          [](const Config& c) {
            for (const auto& [name, policy] : kPolicies)
              if (policy == c.grpc.stream.backpressure.policy) return std::string(name);
            return std::string();
          },
          [](Config& c, const std::string& value) -> std::string {
            for (const auto& [name, policy] : kPolicies)
              if (name == value) {
                c.grpc.stream.backpressure.policy = policy;
                return {};
              }
            return "one of queue, hard_reject, soft_allow, soft_allow_with_signal";
          }};
}

// Two options that go together.
template <class Member, class Second>
ConfigKey both(ConfigKey key, Member member, Second second, std::size_t times) {
  key.set = [member, second, times](Config& c, const std::string& text) {
    member(c) = static_cast<std::size_t>(to_integer(text));
    second(c) = member(c) * times;
    return std::string();
  };
  return key;
}

#define SLUICE_MEMBER(path) [](Config& c) -> auto& { return c.path; }

std::vector<ConfigKey> make_keys() {
  return {
      text("store.kind", "where state lives: sqlite (with store.url: PostgreSQL), or memory (lost at the stop)",
           SLUICE_MEMBER(store_kind), {"sqlite", "memory"}),
      text("store.path", "the SQLite database file", SLUICE_MEMBER(sqlite.path)),
      without_password(checked("store.url",
                               "postgres://user@host:5432/database?sslmode=…; empty: SQLite. The password better in PGPASSFILE",
                               SLUICE_MEMBER(postgres.url), check_url)),
      boolean("store.pooled", "no prepared statements, for a pooler that pools transactions (PostgreSQL)",
              SLUICE_MEMBER(postgres.pooled)),
      boolean("store.migrate", "make or upgrade the schema at the start (PostgreSQL)", SLUICE_MEMBER(postgres.migrate)),
      time_ms("store.lease_ms", "a node not heard of for this long is taken over (PostgreSQL)",
              SLUICE_MEMBER(postgres.lease)),
      time_ms("store.connect_timeout_ms", "for one attempt to connect (PostgreSQL)",
              SLUICE_MEMBER(postgres.connect_timeout)),
      time_ms("store.io_timeout_ms", "for one answer of the server (PostgreSQL)", SLUICE_MEMBER(postgres.io_timeout)),
      time_ms("store.settle_timeout_ms", "for asking what became of a lost COMMIT; past it: unknown (PostgreSQL)",
              SLUICE_MEMBER(postgres.settle_timeout)),
      integer("store.cache_mib", "page cache of the writer, MiB", 1, 65536,
              SLUICE_MEMBER(sqlite.cache_mib)),
      integer("store.max_queue", "commits that may wait; past it: overloaded", 1, 10'000'000,
              SLUICE_MEMBER(sqlite.max_queue)),
      integer("store.max_group", "commits in one transaction", 1, 100'000,
              SLUICE_MEMBER(sqlite.max_group)),
      integer("store.max_live_keys", "idempotency keys kept, 16 bytes of memory each", 1,
              1'000'000'000, SLUICE_MEMBER(sqlite.max_live_keys)),
      integer("store.max_readers", "read connections", 1, 64, SLUICE_MEMBER(sqlite.max_readers)),
      boolean("store.verify", "full integrity check on opening", SLUICE_MEMBER(sqlite.verify)),
      time_ms("store.purge_interval_ms", "between sweeps that delete what is old",
              SLUICE_MEMBER(purge.interval)),
      time_s("store.retention_s", "age at which journals, audit rows and events are deleted",
             SLUICE_MEMBER(purge.retention)),
      integer("store.purge_batch", "rows of each table, or whole journals, deleted in one commit", 1, 1'000'000,
              SLUICE_MEMBER(purge.batch)),
      checked("http.address", "IPv4 or IPv6 address to listen on", SLUICE_MEMBER(http.address), check_address),
      integer("http.port", "0: any free port", 0, 65535, SLUICE_MEMBER(http.port)),
      integer("http.loops", "event loops, a thread each", 1, 256, SLUICE_MEMBER(http.loops)),
      integer("http.max_header_bytes", "longest request header", 256, 1 << 20,
              SLUICE_MEMBER(http.max_header_bytes)),
      integer("http.max_body_bytes", "longest request body", 1, 1 << 30,
              SLUICE_MEMBER(http.max_body_bytes)),
      integer("http.max_connections", "open connections; past it: 503", 1, 1'000'000,
              SLUICE_MEMBER(http.max_connections)),
      integer("http.max_connections_per_client",
              "open connections of one IPv4 address or IPv6 /64; past it: 503; 0: no limit", 0,
              1'000'000, SLUICE_MEMBER(http.max_connections_per_client)),
      integer("http.max_json_depth", "nesting of JSON bodies", 1, 10'000,
              SLUICE_MEMBER(http.max_json_depth)),
      time_ms("http.header_timeout_ms", "from the first byte to the end of a header",
              SLUICE_MEMBER(http.header_timeout)),
      time_ms("http.body_timeout_ms", "for a request's body", SLUICE_MEMBER(http.body_timeout)),
      time_ms("http.idle_timeout_ms", "between requests of a connection",
              SLUICE_MEMBER(http.idle_timeout)),
      time_ms("http.write_timeout_ms", "for a client to take its answer",
              SLUICE_MEMBER(http.write_timeout)),
      time_ms("http.default_deadline_ms", "of requests that name none",
              SLUICE_MEMBER(http.default_deadline)),
      time_ms("http.max_deadline_ms", "longest deadline a request may name",
              SLUICE_MEMBER(http.max_deadline)),
      checked("grpc.listen", "host:port of the gRPC door, port 0: any free one; empty: none", SLUICE_MEMBER(grpc.listen), check_listen),
      text("grpc.tls_cert", "PEM file of the certificate, leaf first; empty: no TLS",
           SLUICE_MEMBER(grpc.tls_cert)),
      text("grpc.tls_key", "PEM file of the certificate's key", SLUICE_MEMBER(grpc.tls_key)),
      text("grpc.tls_client_ca",
           "PEM file: callers must show a certificate of this authority; empty: they need none",
           SLUICE_MEMBER(grpc.tls_client_ca)),
      time_ms("grpc.tls_watch_ms", "between two looks at the TLS files; replaced ones are used by new connections",
              SLUICE_MEMBER(grpc.tls_watch)),
      integer("grpc.max_message_bytes", "longest request", 1, 1 << 30,
              SLUICE_MEMBER(grpc.max_message_bytes)),
      integer("grpc.max_streams", "calls at once on one connection; further ones wait", 1, 1'000'000,
              SLUICE_MEMBER(grpc.max_streams)),
      integer("grpc.max_calls", "calls at once, and as many streams beside them; past it: RESOURCE_EXHAUSTED", 1, 10'000'000,
              SLUICE_MEMBER(grpc.max_calls)),
      integer("grpc.max_json_depth", "nesting of JSON payloads", 1, 10'000,
              SLUICE_MEMBER(grpc.max_json_depth)),
      time_ms("grpc.default_deadline_ms", "of calls that name none; streams may be without one",
              SLUICE_MEMBER(grpc.default_deadline)),
      time_ms("grpc.max_deadline_ms", "longest deadline a call may name",
              SLUICE_MEMBER(grpc.max_deadline)),
      both(integer("streams.capacity", "messages of client streams that run at once, over all streams", 1, 1'000'000,
                   SLUICE_MEMBER(grpc.stream.backpressure.capacity)),
           SLUICE_MEMBER(grpc.stream.backpressure.capacity), SLUICE_MEMBER(grpc.stream.backpressure.ceiling), 4),
      stream_policy(),
      both(integer("streams.queue_messages",
                   "messages that wait for a turn or a permit, over all streams; past it the stream ends", 1, 10'000'000,
                   SLUICE_MEMBER(grpc.stream.backpressure.queue_messages)),
           SLUICE_MEMBER(grpc.stream.backpressure.queue_messages), SLUICE_MEMBER(grpc.stream.ordering.capacity), 1),
      integer("streams.queue_bytes", "and their bytes", 1024, 1LL << 40, SLUICE_MEMBER(grpc.stream.backpressure.queue_bytes)),
      integer("streams.credit_messages", "received and not finished of one stream; then its client is stopped", 1, 65'536,
              SLUICE_MEMBER(grpc.stream.credit.messages)),
      integer("streams.credit_bytes", "and their bytes", 1024, 1LL << 40, SLUICE_MEMBER(grpc.stream.credit.bytes)),
      integer("streams.attempts", "of a message that fails for a passing reason; 1: no retry", 1, 100,
              SLUICE_MEMBER(grpc.stream.retry.attempts)),
      time_ms("streams.message_deadline_ms", "for one message once it runs, retries included",
              SLUICE_MEMBER(grpc.stream.message_deadline)),
      integer("gate.permits", "commands that run at once", 1, 1'000'000,
              SLUICE_MEMBER(gate.permits)),
      integer("gate.max_waiting", "commands that wait for a permit, and as many for a turn; past it: 503", 0,
              10'000'000, SLUICE_MEMBER(gate.max_waiting)),
      integer("gate.shadow_permits", "shadow traffic's that run at once, beside those; 0: a quarter of gate.permits", 0, 1'000'000,
              SLUICE_MEMBER(gate.shadow_permits)),
      time_ms("gate.max_wait_ms", "for a permit or a turn; past it: 503",
              SLUICE_MEMBER(gate.max_wait)),
      integer("keys.max_entries", "replies kept in memory", 1, 100'000'000,
              SLUICE_MEMBER(keys.max_entries)),
      integer("keys.max_bytes", "bytes of replies kept in memory", 1024, 1LL << 40,
              SLUICE_MEMBER(keys.max_bytes)),
      integer("keys.max_claims", "keys running at once; past it: overloaded", 1, 100'000'000,
              SLUICE_MEMBER(keys.max_claims)),
      text("guards.rules", "TOML file with the rules of outbound calls; read again when it changes", SLUICE_MEMBER(guard_rules)),
      time_ms("guards.watch_ms", "between two looks at that file", SLUICE_MEMBER(guard_watch)),
      text("guards.missing_shadow", "shadow traffic without a rule of its own: inherit the live rule, pass or deny",
           SLUICE_MEMBER(guard_missing_shadow), {"inherit", "pass", "deny"}),
      integer("guards.max_protectors", "outbound commands with a protector of their own, of all apps, live and shadow together", 1,
              1'000'000, SLUICE_MEMBER(guard_max_protectors)),
      text("guards.overflow", "for further commands: share one protector, pass or deny", SLUICE_MEMBER(guard_overflow),
           {"share", "pass", "deny"}),
      text("log.level", "trace, debug, info, warn, error or off", SLUICE_MEMBER(log_level),
           {"trace", "debug", "info", "warn", "error", "off"}),
      boolean("log.json", "JSON lines instead of text for people", SLUICE_MEMBER(log_json)),
      integer("server.node", "number of this node; on PostgreSQL nodes take theirs from the database", 0, 1023,
              SLUICE_MEMBER(node)),
      time_ms("server.grace_ms", "for what runs to end at the stop", SLUICE_MEMBER(grace)),
      time_ms("server.drain_delay_ms", "at the stop: how long /readyz is 503 while requests are still taken, for balancers to look elsewhere",
              SLUICE_MEMBER(drain_delay), 0),
      boolean("server.allow_remote", "listen beyond the loopback, without TLS",
              SLUICE_MEMBER(allow_remote)),
      time_ms("recovery.sweep_ms", "between two sweeps over what is open, paused or in doubt",
              SLUICE_MEMBER(sweep_every)),
  };
}

#undef SLUICE_MEMBER

// `names` outlives what it is viewed by.
std::vector<ConfigKey> make_channel_keys(const std::string& channel, std::deque<std::string>& names) {
  const auto name = [&](const char* field) -> std::string_view {
    return names.emplace_back("channels." + channel + "." + field);
  };
  const auto member = [&channel](auto field) {
    return [channel, field](Config& c) -> auto& { return field(c.channels[channel]); };
  };
#define SLUICE_FIELD(path) member([](ChannelConfig& c) -> auto& { return c.path; })
  std::vector<ConfigKey> keys = {
      text(name("target"), "where it is, as gRPC names it: host:port, dns:///host:port", SLUICE_FIELD(options.target)),
      boolean(name("tls"), "TLS also without the files below: the system's authorities are trusted",
              SLUICE_FIELD(options.tls)),
      text(name("tls_ca"), "PEM file of the authorities to trust; empty: the system's", SLUICE_FIELD(options.tls_ca)),
      text(name("tls_cert"), "PEM file of our certificate, for a callee that asks for one", SLUICE_FIELD(options.tls_cert)),
      text(name("tls_key"), "PEM file of our certificate's key", SLUICE_FIELD(options.tls_key)),
      text(name("tls_server_name"), "the name its certificate must have; empty: the target's",
           SLUICE_FIELD(options.tls_server_name)),
      time_ms(name("tls_watch_ms"), "between two looks at the TLS files; replaced ones are used by new calls",
              SLUICE_FIELD(options.tls_watch)),
      text(name("token_file"), "file that holds the token to send; empty: none", SLUICE_FIELD(token_file)),
      text(name("balancing"), "among the addresses of the target", SLUICE_FIELD(options.balancing),
           {"round_robin", "pick_first"}),
      time_ms(name("keepalive_ms"), "a ping on a silent connection; at least 10000", SLUICE_FIELD(options.keepalive)),
      time_ms(name("keepalive_timeout_ms"), "for its answer; then the connection is lost",
              SLUICE_FIELD(options.keepalive_timeout)),
      time_ms(name("silence_ms"), "calls that time out unanswered for so long, three at least: a new connection", SLUICE_FIELD(options.silence)),
      time_ms(name("connect_timeout_ms"), "of one attempt to connect", SLUICE_FIELD(options.connect_timeout)),
      integer(name("max_calls"), "calls at once; past it: overloaded", 1, 10'000'000, SLUICE_FIELD(options.max_calls)),
  };
#undef SLUICE_FIELD
  // Looking at a value must not make the channel.
  for (auto& key : keys) {
    key.get = [get = std::move(key.get), channel](const Config& c) {
      if (c.channels.contains(channel)) return get(c);
      Config defaults;
      return get(defaults);
    };
    if (key.name.ends_with(".keepalive_ms")) key.minimum = 10'000;
  }
  return keys;
}

bool channel_name(std::string_view name) {
  return !name.empty() && name.size() <= 32 && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
}

}  // namespace

std::span<const ConfigKey> channel_keys(std::string_view name) {
  static std::mutex mutex;
  static std::deque<std::string> names;
  static std::map<std::string, std::vector<ConfigKey>, std::less<>> known;
  const std::scoped_lock lock(mutex);
  const auto found = known.find(name);
  if (found != known.end()) return found->second;
  if ((name != "NAME" && !channel_name(name)) || known.size() > kMaxChannels) return {};
  return known.emplace(std::string(name), make_channel_keys(std::string(name), names)).first->second;
}

std::string_view key_type_name(KeyType type) noexcept {
  return type == KeyType::text ? "text" : type == KeyType::integer ? "integer" : "boolean";
}

std::string ConfigKey::environment() const {
  std::string variable = "SLUICE_";
  for (const char c : name)
    variable += c == '.' || c == '-' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
  return variable;
}

std::span<const ConfigKey> config_keys() {
  static const std::vector<ConfigKey> keys = make_keys();
  return keys;
}

}  // namespace sluice::server
