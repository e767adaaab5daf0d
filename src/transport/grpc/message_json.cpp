#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>

#include <memory>

#include "sluice/transport/grpc_channel.hpp"

namespace sluice::transport {

std::string message_json(std::string_view type, ByteView body) {
  namespace pb = google::protobuf;
  const auto* found =
      pb::DescriptorPool::generated_pool()->FindMessageTypeByName(std::string(type));
  if (found == nullptr) return "\"a message of no linked .proto\"";
  const std::unique_ptr<pb::Message> message(
      pb::MessageFactory::generated_factory()->GetPrototype(found)->New());
  std::string text;
  pb::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  if (!message->ParseFromArray(body.data(), static_cast<int>(body.size())) ||
      !pb::util::MessageToJsonString(*message, &text, options).ok())
    return "\"not a message of its type\"";
  return text;
}

}  // namespace sluice::transport
