#include "sluice/stream/failure.hpp"

namespace sluice::stream {
namespace {

constexpr int kOk = 0, kCancelled = 1, kUnknown = 2, kResourceExhausted = 8, kAborted = 10, kInternal = 13,
              kUnavailable = 14;

constexpr std::array<FailureClassTraits, kFailureClasses> kTable{{
    {FailureClass::none, "none", kOk, false, false, false},
    {FailureClass::handler_error, "handler_error", kUnknown, false, false, false},
    {FailureClass::context_cancelled, "context_cancelled", kCancelled, false, true, true},
    {FailureClass::backpressure, "backpressure", kResourceExhausted, true, false, true},
    {FailureClass::ordering, "ordering", kAborted, false, false, true},
    {FailureClass::shutdown, "shutdown", kUnavailable, true, true, true},
    {FailureClass::internal, "internal", kInternal, false, false, false},
    {FailureClass::unsettled, "unsettled", kUnknown, false, false, false},
}};

}  // namespace

const FailureClassTraits& traits(FailureClass what) noexcept {
  const auto at = static_cast<std::size_t>(what);
  return kTable[at < kTable.size() ? at : static_cast<std::size_t>(FailureClass::internal)];
}

std::span<const FailureClassTraits> failure_classes() noexcept { return kTable; }

FailureClass classify_failure(const Failure& failure) noexcept {
  switch (failure.kind()) {
    case FailureKind::none:
      return FailureClass::none;
    case FailureKind::cancelled:
      return FailureClass::context_cancelled;
    case FailureKind::timeout:
      // A handler's own time limit is its own failure; the gate and the stream say whose it is.
      return failure.code() == "gate_timeout" || failure.code() == "cancelled" ? FailureClass::context_cancelled
                                                                               : FailureClass::handler_error;
    case FailureKind::overloaded:
      return failure.code() == "gate_full" || failure.code() == "gate_wait" ? FailureClass::backpressure
                                                                            : FailureClass::handler_error;
    case FailureKind::ordering:
      return FailureClass::ordering;
    case FailureKind::shutting_down:
      return FailureClass::shutdown;
    case FailureKind::internal:
      return FailureClass::internal;
    case FailureKind::pending:
    case FailureKind::in_doubt:
      return FailureClass::unsettled;
    default:
      return FailureClass::handler_error;
  }
}

int grpc_code(const Failure& failure) noexcept {
  const FailureClass what = classify_failure(failure);
  if (what == FailureClass::handler_error || what == FailureClass::context_cancelled)
    return failure.traits().grpc_code != kOk ? failure.traits().grpc_code : traits(what).grpc_code;
  return traits(what).grpc_code;
}

std::string_view transaction_of(const Failure& failure) noexcept {
  for (const auto& [key, value] : failure.details())
    if (key == "transaction") return value;
  return {};
}

bool is_retryable(const Failure& failure) noexcept {
  const FailureClass what = classify_failure(failure);
  return what == FailureClass::handler_error ? failure.retryable() : traits(what).retryable;
}

}  // namespace sluice::stream
