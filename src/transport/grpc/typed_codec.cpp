// Messages known by their descriptors: protobuf's JSON mapping at the wall, JSON inside.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>

#include "transport/envelope.hpp"
#include "transport/grpc/codec.hpp"

namespace sluice::transport {

namespace {

namespace pb = google::protobuf;

class TypedCodec final : public Codec {
 public:
  TypedCodec(const pb::MethodDescriptor& method, std::string command, std::uint32_t version)
      : command_(std::move(command)),
        version_(version),
        request_(*pb::MessageFactory::generated_factory()->GetPrototype(method.input_type())),
        response_(*pb::MessageFactory::generated_factory()->GetPrototype(method.output_type())) {}

  Status decode(const grpc::ByteBuffer& request, rpc::Command& out) const override {
    SLUICE_ASSIGN(const std::string bytes, from_buffer(request));
    const std::unique_ptr<pb::Message> message(request_.New());
    if (!message->ParseFromString(bytes))
      return fail(FailureKind::invalid_argument, "bad_message",
                  "the request is no " + message->GetTypeName());
    pb::util::JsonPrintOptions options;
    options.preserve_proto_field_names = true;
    out.payload.clear();
    const auto printed = pb::util::MessageToJsonString(*message, &out.payload, options);
    if (!printed.ok())
      return fail(FailureKind::invalid_argument, "bad_message",
                  message->GetTypeName() + ": " + printed.ToString());
    out.name = command_;
    out.version = version_;
    return {};
  }

  Result<grpc::ByteBuffer> encode(std::string_view body) const override {
    const std::unique_ptr<pb::Message> message(response_.New());
    pb::util::JsonParseOptions options;
    options.ignore_unknown_fields = true;
    if (!body.empty()) {
      const auto parsed = pb::util::JsonStringToMessage(
          pb::StringPiece(body.data(), body.size()), message.get(), options);
      if (!parsed.ok())
        return fail(FailureKind::internal, "reply_does_not_fit",
                    "the reply of '" + command_ + "' is no " + message->GetTypeName() + ": " +
                        parsed.ToString());
    }
    return to_buffer(message->SerializeAsString());
  }

 private:
  const std::string command_;
  const std::uint32_t version_;
  const pb::Message& request_;  // prototypes live as long as the process
  const pb::Message& response_;
};

}  // namespace

Result<std::unique_ptr<Codec>> typed_codec(const std::string& method, std::string command,
                                           std::uint32_t version) {
  std::string name = method;
  if (const auto slash = name.find('/'); slash != std::string::npos) name[slash] = '.';
  const auto* found = pb::DescriptorPool::generated_pool()->FindMethodByName(name);
  if (found == nullptr)
    return fail(FailureKind::invalid_argument, "unknown_method",
                "gRPC method " + quoted(method) +
                    " is in no .proto of this program: expected package.Service/Method");
  if (found->client_streaming() || found->server_streaming())
    return fail(FailureKind::invalid_argument, "method_streams",
                "gRPC method " + method + " streams: a command is unary");
  return std::make_unique<TypedCodec>(*found, std::move(command), version);
}

}  // namespace sluice::transport
