// gRPC aborts the process on metadata that is not fit for its wire, so all of ours is looked at.
#pragma once
#include <algorithm>
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

}  // namespace sluice::transport
