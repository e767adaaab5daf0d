// Certificates from files, with messages for people: gRPC itself only says that something failed. Files
// that are replaced while the process runs are used from then on; files that cannot be used are not.
#pragma once
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "sluice/base/failure.hpp"
#include "sluice/base/log.hpp"
#include "sluice/base/time.hpp"

namespace sluice::transport {

/// Where certificates are. Names of configuration keys are for messages.
struct TlsPaths {
  std::string cert, key;  ///< PEM files; a pair, or both empty
  std::string ca;         ///< PEM file of authorities; or empty
  std::string prefix;     ///< "grpc." or empty
  std::string ca_key = "tls_ca";
  bool needs_pair = false;  ///< a certificate of one's own: servers
  bool any() const noexcept { return !cert.empty() || !key.empty() || !ca.empty(); }
};

/// What stands in the files, checked.
struct TlsContent {
  std::string cert, key, ca;
  std::optional<WallTime> expires;  ///< of the own certificate
  std::uint64_t version = 1;        ///< grows with each change
};

/// Fails invalid_argument, naming the file and what is wrong with it: missing, no PEM, expired or not
/// valid yet, a key of another certificate.
Result<TlsContent> read_tls(const TlsPaths& paths);

/// Thread-safe. `logger` outlives it.
class TlsFiles {
 public:
  static constexpr Duration kExpiresSoon = std::chrono::hours(24 * 14);

  /// Fails as read_tls().
  static Result<std::shared_ptr<TlsFiles>> open(TlsPaths paths, Duration every, Logger& logger);
  /// Looks at the files if the last look is `every` ago. Files that cannot be used are told and what
  /// was before stays; so is a certificate that expires soon, or has. Reads files: blocks for them.
  std::shared_ptr<const TlsContent> current(Instant now);

 private:
  struct Stamp {
    std::filesystem::file_time_type written[3]{};
    std::uintmax_t size[3]{};
    bool operator==(const Stamp&) const = default;
  };
  TlsFiles(TlsPaths paths, Duration every, Logger& logger)
      : paths_(std::move(paths)), every_(every), logger_(logger) {}
  Stamp stamp() const noexcept;
  void look();
  void tell_expiry();

  const TlsPaths paths_;
  const Duration every_;
  Logger& logger_;
  std::mutex mutex_;
  std::optional<Instant> looked_;
  Stamp seen_;       // of the last reading
  bool bad_ = false;  // that reading failed: it may yet become good, as one that is not valid yet
  bool told_soon_ = false, told_expired_ = false;
  std::shared_ptr<const TlsContent> content_;
};

/// Each handshake is with the files as they are then. Outlives the server that it is given to, which does not
/// keep it.
std::shared_ptr<grpc::ServerCredentials> server_credentials(std::shared_ptr<TlsFiles> files, Clock& clock);
std::shared_ptr<grpc::ChannelCredentials> client_credentials(const TlsContent& content);

}  // namespace sluice::transport
