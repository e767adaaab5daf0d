#include "transport/grpc/codec.hpp"

#include "sluice/v1/commands.pb.h"

namespace sluice::transport {

namespace {

class ExecuteCodec final : public Codec {
 public:
  Status decode(const grpc::ByteBuffer& request, rpc::Command& out) const override {
    SLUICE_ASSIGN(const std::string bytes, from_buffer(request));
    v1::ExecuteRequest message;
    if (!message.ParseFromString(bytes))
      return fail(FailureKind::invalid_argument, "bad_message",
                  "the request is no sluice.v1.ExecuteRequest");
    out.name = std::move(*message.mutable_name());
    out.version = message.version();
    out.payload = std::move(*message.mutable_payload());
    return {};
  }
  Result<grpc::ByteBuffer> encode(std::string_view body) const override {
    v1::ExecuteReply message;
    message.set_body(std::string(body));
    return to_buffer(message.SerializeAsString());
  }
};

}  // namespace

std::unique_ptr<Codec> execute_codec() { return std::make_unique<ExecuteCodec>(); }

grpc::ByteBuffer to_buffer(std::string_view bytes) {
  const grpc::Slice slice(bytes.data(), bytes.size());
  return grpc::ByteBuffer(&slice, 1);
}

Result<std::string> from_buffer(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  // Fails for compressed bytes that do not unpack.
  if (buffer.Valid() && !buffer.Dump(&slices).ok())
    return fail(FailureKind::invalid_argument, "bad_message", "the message cannot be unpacked");
  std::string bytes;
  bytes.reserve(buffer.Valid() ? buffer.Length() : 0);
  for (const auto& slice : slices)
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

}  // namespace sluice::transport
