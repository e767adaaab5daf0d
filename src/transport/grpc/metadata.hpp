// Metadata of calls: what callers send, and what may be sent to them. gRPC aborts the process on metadata
// that is not fit for its wire, so all of ours is looked at.
#pragma once
#include <grpcpp/server_context.h>

#include <algorithm>
#include <iterator>
#include <string_view>

namespace sluice::transport {

/// Lower-case letters, digits and - _ . ; not one of gRPC's own, nor binary.
inline bool usable_metadata_name(std::string_view name) noexcept {
  return !name.empty() && !name.starts_with("grpc-") && !name.ends_with("-bin") &&
         std::ranges::all_of(name, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
                  c == '.';
         });
}
/// Visible ASCII and blanks.
inline bool usable_metadata_value(std::string_view value) noexcept {
  return std::ranges::all_of(value, [](char c) { return c >= 0x20 && c < 0x7F; });
}

/// The value of a key that may stand once.
inline std::string_view value_of(const grpc::CallbackServerContext& call, const char* key, bool& repeated, bool* found = nullptr) {
  const auto [begin, end] = call.client_metadata().equal_range(key);
  if (found != nullptr) *found = begin != end;
  if (begin == end) return {};
  if (std::next(begin) != end) repeated = true;
  return {begin->second.data(), begin->second.size()};
}

/// Shadow calls and streams have one part in so many of what live ones have, and beside it.
inline constexpr std::size_t kShadowShare = 4;

}  // namespace sluice::transport
