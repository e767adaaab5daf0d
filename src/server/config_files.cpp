// The files that a configuration names: rules, certificates, tokens.
#include <vector>

#include "server/beyond_loopback.hpp"
#include "server/guard_rules.hpp"
#include "sluice/base/files.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/server/config.hpp"

namespace sluice::server {

namespace {

// A failure names its key first: "grpc.tls_cert: …", "channels.codes: tls_cert: …".
bool names(std::string_view detail, std::string_view key) {
  const auto dot = key.rfind('.');
  const std::string table(key.substr(0, dot)), field(key.substr(dot + 1));
  return detail.starts_with(std::string(key) + ":") || detail.starts_with(table + ": " + field + ":");
}

Failure placed(const Config& config, const Failure& failure, std::string_view otherwise) {
  for (const auto& [key, place] : config.places)
    if (names(failure.detail(), key)) return failure.at(place);
  const auto found = config.places.find(otherwise);
  return found == config.places.end() ? failure : failure.at(found->second);
}

}  // namespace

Status check_files(const Config& config) {
  std::vector<Failure> all;
  const auto look = [&](const Status& good, std::string_view otherwise) {
    if (!good) all.push_back(placed(config, good.error(), otherwise));
  };
  const auto reach = check_reach(config);
  look(reach, !reach && reach.error().detail().starts_with("http.") ? "http.address" : "grpc.listen");
  RealClock clock;
  RealRandom random;
  resilience::Guards guards(clock, random);
  const GuardRules rules(guards, config.guard_rules, null_logger());
  if (!config.guard_rules.empty())
    if (const auto good = rules.plan(std::nullopt); !good) {
      // What is wrong in the file has a place there.
      const bool of_file = good.error().code() == kRulesFile;
      all.push_back(of_file ? placed(config, good.error().at("guards.rules"), "guards.rules") : good.error());
    }
  for (const auto& [name, channel] : config.channels)
    if (!channel.options.target.empty())
      if (const auto good = open_channel(name, channel); !good) look(fail(good.error()), "channels." + name + ".target");
  look(transport::check_certificates(config.grpc), config.places.contains("grpc.tls_cert") ? "grpc.tls_cert" : "grpc.listen");
  if (all.empty()) return {};
  if (all.size() == 1) return fail(std::move(all.front()));
  std::string lines;
  for (const Failure& one : all) lines.append(lines.empty() ? "" : "\n").append(one.detail());
  return fail(FailureKind::invalid_argument, "bad_files", std::move(lines));
}

Result<std::shared_ptr<rpc::Channel>> open_channel(const std::string& name, const ChannelConfig& config) {
  transport::GrpcChannelOptions options = config.options;
  options.tls = options.tls || !options.tls_ca.empty() || !options.tls_cert.empty() || !options.tls_key.empty();
  if (!config.token_file.empty()) {
    RealFiles files;
    auto file = files.open(config.token_file, OpenMode::read);
    std::string text(4096, '\0');
    const auto read = file ? (*file)->read_at(0, text.data(), text.size()) : Result<std::size_t>(fail(file.error()));
    if (!read)
      return fail(FailureKind::invalid_argument, "bad_token_file",
                  "channels." + name + ".token_file: " + config.token_file + " cannot be read: expected a file whose first "
                  "line is a token");
    options.token = text.substr(0, std::min(*read, text.find_first_of("\r\n")));
  }
  auto channel = transport::make_grpc_channel(std::move(options));
  if (!channel) return fail(channel.error().at("channels." + name));
  return channel;
}

}  // namespace sluice::server
