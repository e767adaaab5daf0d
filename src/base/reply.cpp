#include "sluice/base/reply.hpp"

namespace sluice {
namespace {
constexpr std::uint8_t kEncoderVersion = 1;
constexpr std::uint8_t kDeclined = 0x80;  // in the byte of the kind
constexpr std::string_view kDetailPrefix = "x-detail-";
}  // namespace

Reply Reply::from(const Failure& failure) {
  Reply reply;
  reply.kind = failure.kind();
  reply.code = failure.code();
  reply.detail = failure.detail();
  for (const auto& [key, value] : failure.details())
    reply.headers.emplace_back(std::string(kDetailPrefix) + key, value);
  return reply;
}

Failure Reply::to_failure() const {
  Failure failure(kind, code, detail);
  for (const auto& [name, value] : headers)
    if (name.starts_with(kDetailPrefix))
      failure = failure.with(name.substr(kDetailPrefix.size()), value);
  return failure;
}

Bytes Reply::encode() const {
  Bytes out;
  out.reserve(16 + code.size() + detail.size() + body.size());
  ByteWriter writer(out);
  writer.u8(kEncoderVersion);
  writer.u8(static_cast<std::uint8_t>(static_cast<std::uint8_t>(kind) | (declined ? kDeclined : 0)));
  writer.bytes(code);
  writer.bytes(detail);
  writer.varint(headers.size());
  for (const auto& [name, value] : headers) {
    writer.bytes(name);
    writer.bytes(value);
  }
  writer.bytes(body);
  return out;
}

Result<Reply> Reply::decode(ByteView bytes) {
  ByteReader reader(bytes);
  const auto version = reader.u8();
  if (version != kEncoderVersion)
    return fail(FailureKind::corrupt, "reply_version",
                "stored reply: expected encoder version 1, got " + std::to_string(version));
  Reply reply;
  const auto first = reader.u8();
  reply.declined = (first & kDeclined) != 0;
  const auto kind = static_cast<std::uint8_t>(first & ~kDeclined);
  reply.kind = static_cast<FailureKind>(kind);
  reply.code = reader.bytes();
  reply.detail = reader.bytes();
  const auto count = reader.varint();
  for (std::uint64_t i = 0; i < count && reader.ok(); ++i) {
    std::string name(reader.bytes());
    std::string value(reader.bytes());
    reply.headers.emplace_back(std::move(name), std::move(value));
  }
  reply.body = reader.bytes();
  if (!reader.at_end() || kind >= failure_table().size())
    return fail(FailureKind::corrupt, "reply_bytes",
                "stored reply does not decode: " + std::to_string(bytes.size()) +
                    " bytes, stopped at " + std::to_string(reader.offset()));
  return reply;
}

}  // namespace sluice
