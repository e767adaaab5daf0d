// Doors that others can reach need TLS, or a word that something in front of them has it.
#include "server/beyond_loopback.hpp"

namespace sluice::server {

bool is_loopback(std::string_view address) noexcept {
  return address == "::1" || address == "localhost" || address.starts_with("127.");
}

namespace {
// Of "host:port" or "[host]:port".
std::string_view host_of(std::string_view listen) noexcept {
  auto host = listen.substr(0, listen.rfind(':'));
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  return host;
}
}  // namespace

Status check_reach(const Config& config) {
  if (config.allow_remote) return {};
  if (!is_loopback(config.http.address))
    return fail(FailureKind::invalid_argument, "remote_not_allowed",
                "http.address " + config.http.address +
                    " is beyond the loopback and the door has no TLS: set server.allow_remote = "
                    "true if something in front of it has");
  if (const auto& listen = config.grpc.listen;
      !listen.empty() && !is_loopback(host_of(listen)) && config.grpc.tls_cert.empty())
    return fail(FailureKind::invalid_argument, "remote_not_allowed",
                "grpc.listen " + listen +
                    " is beyond the loopback without TLS: set grpc.tls_cert and grpc.tls_key, or "
                    "server.allow_remote = true if something in front of it has TLS");
  return {};
}

}  // namespace sluice::server
