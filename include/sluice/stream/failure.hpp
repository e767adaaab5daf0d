// What can happen to a message of a stream, for counting and for the stream's end. The kinds of
// base say what a failure is; these say who caused it, and one table what follows.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "sluice/base/failure.hpp"

namespace sluice::stream {

enum class FailureClass : std::uint8_t {
  none,
  handler_error,      ///< the handler said no; its own failure is passed on
  context_cancelled,  ///< the caller is gone or its deadline passed
  backpressure,       ///< refused at capacity; nothing ran
  ordering,           ///< a gap, a broken key, an old epoch; nothing ran
  shutdown,           ///< the server is stopping
  internal,           ///< the handler threw, or a bug
  unsettled,          ///< no failure: begun or decided, and not over yet; its transaction tells the rest
};
inline constexpr std::size_t kFailureClasses = 8;

/// One row of the table.
struct FailureClassTraits {
  FailureClass what;
  std::string_view name;  ///< stable, snake_case, on every wire
  /// google.rpc.Code; of handler_error: where the failure's own kind has none (UNKNOWN).
  int grpc_code;
  bool retryable;        ///< the same message may succeed later; handler_error: its kind decides
  bool terminal;         ///< ends the stream
  bool breaks_ordering;  ///< not having run leaves a hole in its key's order
};

/// Never fails: an unknown value reads as internal.
const FailureClassTraits& traits(FailureClass what) noexcept;
std::span<const FailureClassTraits> failure_classes() noexcept;

/// Of a failure that a handler, the gate or the stream itself ended with. Told apart by kind and
/// code: a handler's own `overloaded` is handler_error, the gate's is backpressure.
FailureClass classify_failure(const Failure& failure) noexcept;
inline FailureClass classify_failure(const Status& status) noexcept {
  return status ? FailureClass::none : classify_failure(status.error());
}
/// The google.rpc.Code a stream ends with for this failure. In [0, 16].
int grpc_code(const Failure& failure) noexcept;
/// The transaction it tells of; empty: none was begun. Lives as long as the failure.
std::string_view transaction_of(const Failure& failure) noexcept;
/// Whether the same message may be tried again.
bool is_retryable(const Failure& failure) noexcept;

}  // namespace sluice::stream
