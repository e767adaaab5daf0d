// Certificates from files, with messages for people: gRPC itself only says that something failed.
#pragma once
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include "sluice/base/failure.hpp"

namespace sluice::transport {

/// Without TLS when all are empty. Fails invalid_argument, naming the file and what is wrong with
/// it: missing, no PEM, expired or not valid yet, a key of another certificate.
Result<std::shared_ptr<grpc::ServerCredentials>> server_credentials(
    const std::string& cert_path, const std::string& key_path, const std::string& client_ca_path = {});
/// `ca_path`: PEM file of the authorities that are trusted (empty: the system's); certificate and key
/// for callees that ask for one, or empty. Fails as above.
Result<std::shared_ptr<grpc::ChannelCredentials>> client_credentials(
    const std::string& ca_path, const std::string& cert_path = {}, const std::string& key_path = {});

}  // namespace sluice::transport
