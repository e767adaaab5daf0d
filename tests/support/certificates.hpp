// Certificates for a host, self-signed or by an authority of the test, made when a test needs them.
#pragma once
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>

namespace sluice::test {

struct MadeCertificate {
  std::string certificate, key;  ///< PEM
};

inline std::string take_pem(BIO* bio) {
  char* data = nullptr;
  const auto size = BIO_get_mem_data(bio, &data);
  std::string text(data, static_cast<std::size_t>(size));
  BIO_free(bio);
  return text;
}

/// An elliptic key and a certificate that says of itself that `host` may use it, from `from` to `to`
/// seconds from now. By `authority`, or by itself.
inline MadeCertificate make_certificate(const std::string& host, const MadeCertificate* authority = nullptr,
                                        long from = -3600, long to = 3600) {
  static long serial = 0;
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(certificate), from);
  X509_gmtime_adj(X509_getm_notAfter(certificate), to);
  X509_set_pubkey(certificate, key);
  X509_NAME* name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(host.c_str()), -1, -1, 0);
  const auto extend = [&](int nid, const std::string& value) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value.c_str());
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  };
  extend(NID_subject_alt_name, "DNS:" + host);
  extend(NID_basic_constraints, authority == nullptr ? "critical,CA:TRUE" : "critical,CA:FALSE");
  if (authority == nullptr) {
    X509_set_issuer_name(certificate, name);
    X509_sign(certificate, key, EVP_sha256());
  } else {
    BIO* in = BIO_new_mem_buf(authority->certificate.data(), static_cast<int>(authority->certificate.size()));
    X509* issuer = PEM_read_bio_X509(in, nullptr, nullptr, nullptr);
    BIO_free(in);
    in = BIO_new_mem_buf(authority->key.data(), static_cast<int>(authority->key.size()));
    EVP_PKEY* signer = PEM_read_bio_PrivateKey(in, nullptr, nullptr, nullptr);
    BIO_free(in);
    X509_set_issuer_name(certificate, X509_get_subject_name(issuer));
    X509_sign(certificate, signer, EVP_sha256());
    X509_free(issuer);
    EVP_PKEY_free(signer);
  }
  MadeCertificate made;
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(bio, certificate);
  made.certificate = take_pem(bio);
  bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
  made.key = take_pem(bio);
  X509_free(certificate);
  EVP_PKEY_free(key);
  return made;
}

}  // namespace sluice::test
