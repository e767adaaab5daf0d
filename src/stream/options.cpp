#include "sluice/stream/options.hpp"

namespace sluice::stream {
namespace {

Status at_least_one(std::string_view option, std::size_t value) {
  if (value != 0) return {};
  return fail(FailureKind::invalid_argument, "bad_option",
              std::string("stream option ") + std::string(option) +
                  ": expected at least 1, got 0; write `unbounded` if no bound is meant");
}

Status not_negative(std::string_view option, Duration value, bool zero_too) {
  if (value > Duration::zero() || (zero_too && value == Duration::zero())) return {};
  return fail(FailureKind::invalid_argument, "bad_option",
              std::string("stream option ") + std::string(option) + ": expected a time " +
                  (zero_too ? "of 0 or more" : "above 0") + ", got " +
                  std::to_string(std::chrono::duration_cast<milliseconds>(value).count()) + " ms");
}

}  // namespace

Status check(const Options& options) {
  SLUICE_TRY(at_least_one("ordering.capacity", options.ordering.capacity));
  SLUICE_TRY(at_least_one("ordering.max_broken_keys", options.ordering.max_broken_keys));
  SLUICE_TRY(at_least_one("backpressure.capacity", options.backpressure.capacity));
  SLUICE_TRY(at_least_one("backpressure.queue_messages", options.backpressure.queue_messages));
  SLUICE_TRY(at_least_one("backpressure.queue_bytes", options.backpressure.queue_bytes));
  SLUICE_TRY(at_least_one("credit.messages", options.credit.messages));
  SLUICE_TRY(at_least_one("credit.bytes", options.credit.bytes));
  SLUICE_TRY(at_least_one("credit.max_ahead", options.credit.max_ahead));
  SLUICE_TRY(not_negative("shutdown.grace", options.shutdown.grace, true));
  SLUICE_TRY(not_negative("message_deadline", options.message_deadline, false));
  const bool soft = options.backpressure.policy == admission::AtCapacity::soft_allow ||
                    options.backpressure.policy == admission::AtCapacity::soft_allow_with_signal;
  if (soft && options.backpressure.ceiling < options.backpressure.capacity)
    return fail(FailureKind::invalid_argument, "bad_option",
                "stream option backpressure.ceiling: expected at least the capacity (" +
                    std::to_string(options.backpressure.capacity) + "), got " +
                    std::to_string(options.backpressure.ceiling));
  if (options.credit.max_ahead < options.credit.messages && options.credit.messages != unbounded)
    return fail(FailureKind::invalid_argument, "bad_option",
                "stream option credit.max_ahead: expected at least credit.messages (" +
                    std::to_string(options.credit.messages) + "), got " +
                    std::to_string(options.credit.max_ahead));
  return {};
}

}  // namespace sluice::stream
