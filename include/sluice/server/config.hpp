// One TOML file, SLUICE_* environment variables over it. Every key stands in one table, from which
// checking, `sluice config show` and docs/reference.md are made.
#pragma once
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sluice/base/log.hpp"
#include "sluice/idempotency/keys.hpp"
#include "sluice/store/postgres.hpp"
#include "sluice/store/sqlite.hpp"
#include "sluice/transport/grpc.hpp"
#include "sluice/transport/grpc_channel.hpp"
#include "sluice/transport/http.hpp"

namespace sluice::server {

/// What the server deletes from its store because of its age.
struct PurgeOptions {
  milliseconds interval{60'000};               ///< between sweeps
  milliseconds retention = std::chrono::days(30);  ///< of journals, audit rows and events
  std::size_t batch = 1000;                        ///< rows of each table in one commit
};

/// How many commands run and wait. What is past it is answered overloaded, before anything ran.
struct GateLimits {
  std::size_t permits = 4096;       ///< commands that run at once
  std::size_t max_waiting = 16'384;  ///< for a permit or a turn
  milliseconds max_wait{5'000};     ///< of one command, for both
  /// Of shadow traffic, which has a gate of its own beside that of live traffic; 0: a quarter of `permits`. A
  /// quarter of `max_waiting` may wait there.
  std::size_t shadow_permits = 0;
};

/// Another service that applications call: `[channels.NAME]`. TLS is used once `tls` is set or a
/// certificate or authority is named.
struct ChannelConfig {
  transport::GrpcChannelOptions options;
  std::string token_file;  ///< holds the token on its first line; not shown by `config show`
};
inline constexpr std::size_t kMaxChannels = 64;
/// As make_grpc_channel, with the token read and messages that name the channel's configuration key.
Result<std::shared_ptr<rpc::Channel>> open_channel(const std::string& name, const ChannelConfig& config);

struct Config {
  std::string store_kind = "sqlite";  ///< sqlite or memory
  store::SqliteOptions sqlite;
  store::PostgresOptions postgres;  ///< used when its url is not empty; queue and group bounds are sqlite's
  transport::HttpOptions http;
  transport::GrpcOptions grpc;  ///< an empty `listen`: no gRPC door
  idempotency::KeysOptions keys;
  GateLimits gate;
  PurgeOptions purge;
  std::string guard_rules;  ///< a TOML file; empty: none
  milliseconds guard_watch{1'000};
  std::string guard_missing_shadow = "inherit", guard_overflow = "share";  ///< as resilience names them
  std::size_t guard_max_protectors = 10'000;
  std::string log_level = "info";
  bool log_json = false;
  std::uint16_t node = 1;  ///< 0–1023, unique among nodes of one store
  milliseconds grace{10'000};
  milliseconds drain_delay{0};  ///< before the grace begins: not ready, and still taking requests
  milliseconds sweep_every{30'000};  ///< between two sweeps over what is open or in doubt
  bool allow_remote = false;
  std::map<std::string, ChannelConfig> channels;  ///< by name
  /// Where each key was set: "sluice.toml:7" or "environment: SLUICE_HTTP_PORT". Those that are absent
  /// have their default.
  std::map<std::string, std::string, std::less<>> places;
  /// What may be a mistake and keeps nobody from starting, a sentence each.
  std::vector<std::string> warnings;
  Config() {
    sqlite.path = "sluice.db";
    grpc.listen.clear();
  }
};

enum class KeyType : std::uint8_t { text, integer, boolean };
std::string_view key_type_name(KeyType type) noexcept;

/// One row of the table. Values pass through text, which is also what the environment holds.
struct ConfigKey {
  std::string_view name;  ///< "http.port"
  KeyType type;
  std::string_view meaning;  ///< with unit and range
  std::int64_t minimum = 0;  ///< of integers
  std::int64_t maximum = 0;
  std::function<std::string(const Config&)> get;
  /// The text has the right type and range already. Empty: taken; else what was expected.
  std::function<std::string(Config&, const std::string&)> set;
  std::string environment() const;  ///< "SLUICE_HTTP_PORT"
};
std::span<const ConfigKey> config_keys();
/// Those of one channel, "channels.NAME.target" and so on; they live as long as the process. Names are
/// 1 to 32 of a-z 0-9 -; empty for another name, and past kMaxChannels different ones.
std::span<const ConfigKey> channel_keys(std::string_view name);

/// The environment as a look-up, so that tests give their own.
using Environment = std::map<std::string, std::string, std::less<>>;
/// The SLUICE_* variables of this process.
Environment process_environment();

/// Over the defaults. `file` names the text in messages. Failures (invalid_argument) name file,
/// line, key, what was expected and what was found; all of them are reported, one a line. A variable
/// nobody knows is a warning: orchestrators set some of their own.
Result<Config> parse_config(std::string_view text, std::string_view file, const Environment& env);
/// The same from a file; an empty path: defaults and the environment only.
Result<Config> load_config(const std::string& path, const Environment& env);
/// As TOML that parses to the same configuration.
std::string show_config(const Config& config);
/// The table as Markdown, for docs/reference.md.
std::string config_reference();

/// Whether the files that `config` names can be used: rules, certificates, tokens of channels. Fails as the
/// start would, naming key, file and where the key is set; several (bad_files) in a line each. Reads them; connects to nobody.
Status check_files(const Config& config);

}  // namespace sluice::server
