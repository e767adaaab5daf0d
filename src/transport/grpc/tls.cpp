#include "transport/grpc/tls.hpp"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>

#include "sluice/base/files.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice::transport {

namespace {

constexpr std::size_t kPemBytesMax = 1 << 20;

Failure bad(std::string_view code, const std::string& detail) {
  return Failure(FailureKind::invalid_argument, code, detail);
}

Result<std::string> read_pem(const char* key, const std::string& path) {
  RealFiles files;
  auto file = files.open(path, OpenMode::read);
  if (!file)
    return fail(bad("bad_certificate", std::string(key) + ": " + path + " cannot be read (" +
                                           std::string(file.error().detail()) +
                                           "): expected a PEM file"));
  auto size = (*file)->size();
  if (!size) return fail(size.error().at(path));
  if (*size > kPemBytesMax)
    return fail(bad("bad_certificate", std::string(key) + ": " + path + " has " +
                                           std::to_string(*size) + " bytes: that is no PEM file"));
  std::string text(static_cast<std::size_t>(*size), '\0');
  if (auto n = (*file)->read_at(0, text.data(), text.size()); !n) return fail(n.error().at(path));
  return text;
}

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

Bio bio(const std::string& text) {
  return {BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), &BIO_free};
}

Result<Certificate> parse_certificate(const char* key, const std::string& path,
                                      const std::string& text) {
  Certificate certificate(PEM_read_bio_X509(bio(text).get(), nullptr, nullptr, nullptr),
                          &X509_free);
  if (certificate == nullptr)
    return fail(bad("bad_certificate", std::string(key) + ": " + path +
                                           " holds no certificate: expected PEM text that begins "
                                           "with -----BEGIN CERTIFICATE-----"));
  return certificate;
}

std::string time_text(const ASN1_TIME* time) {
  const Bio out(BIO_new(BIO_s_mem()), &BIO_free);
  ASN1_TIME_print(out.get(), time);
  char* data = nullptr;
  const auto size = BIO_get_mem_data(out.get(), &data);
  return std::string(data, static_cast<std::size_t>(size));
}

/// The first certificate of a file, if it is valid now: peers refuse it otherwise, with less to say.
Result<Certificate> valid_certificate(const std::string& key, const std::string& path,
                                      const std::string& text) {
  SLUICE_ASSIGN(Certificate certificate, parse_certificate(key.c_str(), path, text));
  if (X509_cmp_current_time(X509_get0_notAfter(certificate.get())) < 0)
    return fail(bad("bad_certificate", key + ": the certificate in " + path + " expired at " +
                                           time_text(X509_get0_notAfter(certificate.get())) +
                                           ": renew it"));
  if (X509_cmp_current_time(X509_get0_notBefore(certificate.get())) > 0)
    return fail(bad("bad_certificate", key + ": the certificate in " + path +
                                           " is not valid before " +
                                           time_text(X509_get0_notBefore(certificate.get())) +
                                           ": check the clock of this machine"));
  return certificate;
}

WallTime wall_time_of(const ASN1_TIME* time) {
  std::tm utc{};
  ASN1_TIME_to_tm(time, &utc);
  return WallTime(std::chrono::seconds(timegm(&utc)));
}

struct Pair {
  std::string cert, key;
  WallTime expires;
};

/// `prefix`: of the configuration keys, for messages.
Result<Pair> read_pair(const std::string& prefix, const std::string& cert_path,
                       const std::string& key_path) {
  const std::string cert_key = prefix + "tls_cert", key_key = prefix + "tls_key";
  if (cert_path.empty() || key_path.empty())
    return fail(bad("bad_certificate", (cert_path.empty() ? cert_key : key_key) +
                                           " is not set: TLS needs a certificate and its key"));
  Pair pair;
  SLUICE_ASSIGN(pair.cert, read_pem(cert_key.c_str(), cert_path));
  SLUICE_ASSIGN(pair.key, read_pem(key_key.c_str(), key_path));
  SLUICE_ASSIGN(const Certificate certificate, valid_certificate(cert_key, cert_path, pair.cert));
  // An empty password: a prompt on the terminal would stop the server's start for ever.
  const Key parsed(
      PEM_read_bio_PrivateKey(bio(pair.key).get(), nullptr, nullptr, const_cast<char*>("")),
      &EVP_PKEY_free);
  if (parsed == nullptr)
    return fail(bad("bad_certificate", key_key + ": " + key_path +
                                           " holds no private key that can be read: expected PEM "
                                           "text without a password"));
  if (X509_check_private_key(certificate.get(), parsed.get()) != 1)
    return fail(bad("bad_certificate", key_key + ": " + key_path +
                                           " is not the key of the certificate in " + cert_path));
  pair.expires = wall_time_of(X509_get0_notAfter(certificate.get()));
  return pair;
}

// gRPC asks for the certificates at each handshake. Its own C++ credentials take them once, so this is
// the same by way of its C interface.
class FileCredentials final : public grpc::ServerCredentials {
 public:
  FileCredentials(std::shared_ptr<TlsFiles> files, Clock& clock) : files_(std::move(files)), clock_(clock) {
    const bool asks = !files_->current(clock_.now())->ca.empty();
    credentials_ = grpc_ssl_server_credentials_create_with_options(grpc_ssl_server_credentials_create_options_using_config_fetcher(
        asks ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
        &FileCredentials::fetch, this));
  }
  ~FileCredentials() override { grpc_server_credentials_release(credentials_); }
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }
  // Called under gRPC's own lock, one after another.
  static grpc_ssl_certificate_config_reload_status fetch(void* owner, grpc_ssl_server_certificate_config** config) {
    auto* self = static_cast<FileCredentials*>(owner);
    const auto content = self->files_->current(self->clock_.now());
    if (content->version == self->given_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const grpc_ssl_pem_key_cert_pair pair{content->key.c_str(), content->cert.c_str()};
    // It wants authorities also where callers are asked for no certificate; then they trust nobody, for
    // nobody is asked. Source: ssl_security_connector.cc of gRPC 1.51.
    const std::string& authorities = content->ca.empty() ? content->cert : content->ca;
    *config = grpc_ssl_server_certificate_config_create(authorities.c_str(), &pair, 1);
    self->given_ = content->version;
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }
  const std::shared_ptr<TlsFiles> files_;
  Clock& clock_;
  grpc_server_credentials* credentials_ = nullptr;
  std::uint64_t given_ = 0;
};

}  // namespace

Result<TlsContent> read_tls(const TlsPaths& paths) {
  TlsContent content;
  if (paths.needs_pair || !paths.cert.empty() || !paths.key.empty()) {
    SLUICE_ASSIGN(Pair pair, read_pair(paths.prefix, paths.cert, paths.key));
    content.cert = std::move(pair.cert);
    content.key = std::move(pair.key);
    content.expires = pair.expires;
  }
  if (!paths.ca.empty()) {
    const std::string name = paths.prefix + paths.ca_key;
    SLUICE_ASSIGN(content.ca, read_pem(name.c_str(), paths.ca));
    SLUICE_TRY(valid_certificate(name, paths.ca, content.ca));
  }
  return content;
}

Result<std::shared_ptr<TlsFiles>> TlsFiles::open(TlsPaths paths, Duration every, Logger& logger) {
  std::shared_ptr<TlsFiles> files(new TlsFiles(std::move(paths), every, logger));
  files->seen_ = files->stamp();
  SLUICE_ASSIGN(TlsContent content, read_tls(files->paths_));
  files->content_ = std::make_shared<const TlsContent>(std::move(content));
  files->tell_expiry();
  return files;
}

TlsFiles::Stamp TlsFiles::stamp() const noexcept {
  Stamp now;
  std::size_t i = 0;
  for (const auto* path : {&paths_.cert, &paths_.key, &paths_.ca}) {
    std::error_code none;
    if (!path->empty()) {
      now.written[i] = std::filesystem::last_write_time(*path, none);
      now.size[i] = std::filesystem::file_size(*path, none);
    }
    ++i;
  }
  return now;
}

std::shared_ptr<const TlsContent> TlsFiles::current(Instant now) {
  const std::lock_guard lock(mutex_);
  if (looked_ && now - *looked_ < every_) return content_;
  looked_ = now;
  look();
  return content_;
}

void TlsFiles::look() {
  const Stamp now = stamp();
  const bool changed = !(now == seen_);
  if (changed || bad_) {
    seen_ = now;  // before they are read: what is written meanwhile is seen the next time
    auto read = read_tls(paths_);
    bad_ = !read;
    if (read) {
      read->version = content_->version + 1;
      content_ = std::make_shared<const TlsContent>(*std::move(read));
      told_soon_ = told_expired_ = false;
      logger_.info("certificate files have changed and are used from now on",
                   {{"certificate", paths_.cert}, {"authorities", paths_.ca}});
    } else if (changed) {
      logger_.error("certificate files have changed and cannot be used; those of before stay",
                    {{"failure", read.error().to_string()}});
    }
  }
  tell_expiry();
}

void TlsFiles::tell_expiry() {
  if (!content_->expires) return;
  RealClock clock;  // certificates are of the world outside, as the check of their dates above
  const auto left = *content_->expires - clock.wall();
  if (left <= left.zero() && !std::exchange(told_expired_, true))
    logger_.error("the certificate has expired and is refused by others: replace the file, it is read again",
                  {{"certificate", paths_.cert}});
  else if (left > left.zero() && left < kExpiresSoon && !std::exchange(told_soon_, true))
    logger_.warn("the certificate expires soon: replace the file, it is read again",
                 {{"certificate", paths_.cert}, {"hours", std::chrono::duration_cast<std::chrono::hours>(left).count()}});
}

std::shared_ptr<grpc::ServerCredentials> server_credentials(std::shared_ptr<TlsFiles> files, Clock& clock) {
  return std::make_shared<FileCredentials>(std::move(files), clock);
}

std::shared_ptr<grpc::ChannelCredentials> client_credentials(const TlsContent& content) {
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = content.ca;
  options.pem_cert_chain = content.cert;
  options.pem_private_key = content.key;
  return grpc::SslCredentials(options);
}

}  // namespace sluice::transport
