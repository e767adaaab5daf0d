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

struct Pair {
  std::string cert, key;
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
  return pair;
}

}  // namespace

Result<std::shared_ptr<grpc::ServerCredentials>> server_credentials(
    const std::string& cert_path, const std::string& key_path, const std::string& client_ca_path) {
  if (cert_path.empty() && key_path.empty() && client_ca_path.empty())
    return grpc::InsecureServerCredentials();
  SLUICE_ASSIGN(Pair pair, read_pair("grpc.", cert_path, key_path));
  grpc::SslServerCredentialsOptions options;
  if (!client_ca_path.empty()) {
    SLUICE_ASSIGN(std::string ca, read_pem("grpc.tls_client_ca", client_ca_path));
    SLUICE_TRY(valid_certificate("grpc.tls_client_ca", client_ca_path, ca));
    options = grpc::SslServerCredentialsOptions(
        GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    options.pem_root_certs = std::move(ca);
  }
  options.pem_key_cert_pairs.push_back({std::move(pair.key), std::move(pair.cert)});
  return grpc::SslServerCredentials(options);
}

Result<std::shared_ptr<grpc::ChannelCredentials>> client_credentials(const std::string& ca_path,
                                                                     const std::string& cert_path,
                                                                     const std::string& key_path) {
  grpc::SslCredentialsOptions options;
  if (!ca_path.empty()) {
    SLUICE_ASSIGN(options.pem_root_certs, read_pem("tls_ca", ca_path));
    SLUICE_TRY(valid_certificate("tls_ca", ca_path, options.pem_root_certs));
  }
  if (!cert_path.empty() || !key_path.empty()) {
    SLUICE_ASSIGN(Pair pair, read_pair("", cert_path, key_path));
    options.pem_cert_chain = std::move(pair.cert);
    options.pem_private_key = std::move(pair.key);
  }
  return grpc::SslCredentials(options);
}

}  // namespace sluice::transport
