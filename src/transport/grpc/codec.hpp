// From the message of one gRPC method to a command's name and payload, and from a reply's body to
// the method's message.
#pragma once
#include <grpcpp/support/byte_buffer.h>

#include <memory>
#include <string>

#include "sluice/base/failure.hpp"
#include "sluice/rpc/command.hpp"

namespace sluice::transport {

/// Thread-safe.
class Codec {
 public:
  virtual ~Codec() = default;
  /// Fills name, version and payload. Fails invalid_argument for bytes that are no such message.
  virtual Status decode(const grpc::ByteBuffer& request, rpc::Command& out) const = 0;
  /// Fails internal for a body that does not fit the message.
  virtual Result<grpc::ByteBuffer> encode(std::string_view body) const = 0;
};

/// Of sluice.v1.Commands/Execute.
std::unique_ptr<Codec> execute_codec();

/// Of a typed service's method, "package.Service/Method". Fails invalid_argument when it is in no
/// linked .proto, or streams.
Result<std::unique_ptr<Codec>> typed_codec(const std::string& method, std::string command,
                                           std::uint32_t version);

/// The bytes of a message as gRPC takes them, and back.
grpc::ByteBuffer to_buffer(std::string_view bytes);
Result<std::string> from_buffer(const grpc::ByteBuffer& buffer);

}  // namespace sluice::transport
