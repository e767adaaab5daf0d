#include "transport/grpc/tls.hpp"

#include <openssl/pem.h>
#include <openssl/x509.h>

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

}  // namespace

Result<std::shared_ptr<grpc::ServerCredentials>> server_credentials(const std::string& cert_path,
                                                                    const std::string& key_path) {
  if (cert_path.empty() && key_path.empty()) return grpc::InsecureServerCredentials();
  if (cert_path.empty() || key_path.empty())
    return fail(bad("bad_certificate", std::string(cert_path.empty() ? "grpc.tls_cert" : "grpc.tls_key") +
                                           " is not set: TLS needs a certificate and its key"));
  SLUICE_ASSIGN(std::string cert, read_pem("grpc.tls_cert", cert_path));
  SLUICE_ASSIGN(std::string key, read_pem("grpc.tls_key", key_path));
  SLUICE_ASSIGN(const Certificate certificate, parse_certificate("grpc.tls_cert", cert_path, cert));
  // An empty password: a prompt on the terminal would stop the server's start for ever.
  const Key parsed(PEM_read_bio_PrivateKey(bio(key).get(), nullptr, nullptr, const_cast<char*>("")),
                   &EVP_PKEY_free);
  if (parsed == nullptr)
    return fail(bad("bad_certificate", "grpc.tls_key: " + key_path +
                                           " holds no private key that can be read: expected PEM "
                                           "text without a password"));
  if (X509_check_private_key(certificate.get(), parsed.get()) != 1)
    return fail(bad("bad_certificate", "grpc.tls_key: " + key_path +
                                           " is not the key of the certificate in " + cert_path));
  grpc::SslServerCredentialsOptions options;
  options.pem_key_cert_pairs.push_back({std::move(key), std::move(cert)});
  return grpc::SslServerCredentials(options);
}

Result<std::shared_ptr<grpc::ChannelCredentials>> client_credentials(const std::string& ca_path) {
  SLUICE_ASSIGN(std::string ca, read_pem("tls_ca", ca_path));
  SLUICE_TRY(parse_certificate("tls_ca", ca_path, ca));
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = std::move(ca);
  return grpc::SslCredentials(options);
}

}  // namespace sluice::transport
