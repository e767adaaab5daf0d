// What can go wrong, said once. Every room returns Result<T>; every door maps a Failure to
// its own wire through the one table in src/base/failure.cpp (docs/errors.md is made from it).
// Thread-safe: a Failure is an immutable value; copies share their text.
#pragma once
#include <chrono>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sluice {

/// A kind exists only if some caller branches on it. Stored in journals: append only.
enum class FailureKind : std::uint8_t {
  none = 0,
  invalid_argument = 1,
  unauthenticated = 2,
  forbidden = 3,
  not_found = 4,
  already_exists = 5,
  precondition_failed =
      6,  ///< a named precondition of a Commit did not hold (sold out, quota used)
  fingerprint_mismatch = 7,  ///< same idempotency key, other payload
  version_conflict = 8,      ///< optimistic read went stale; re-run inside the same claim
  in_progress = 9,           ///< the first request with this key is still running
  rejected = 10,             ///< a stage refused for a business reason
  rate_limited = 11,
  overloaded = 12,   ///< a bound was reached: queue, permits, store of claims
  unavailable = 13,  ///< nothing took effect; the dependency is down or closed
  timeout = 14,      ///< the deadline passed before any effect
  cancelled = 15,
  unknown_outcome = 16,  ///< may or may not have taken effect; never retried without a key
  in_doubt = 17,         ///< decided, but external stages are unsettled
  pending = 18,          ///< decided or waiting; the reply is not final yet
  shutting_down = 19,
  ordering = 20,  ///< this message may not run because an earlier one of its key did not
  too_large = 21,
  corrupt = 22,         ///< stored data does not read back as written
  resource_limit = 23,  ///< a sandbox limit (memory, instructions, output) was hit
  internal = 24,        ///< a bug or a foreign exception; the process lives
};

/// What the idempotency store does with a failure that carries no reply of its own.
enum class Remember : std::uint8_t {
  store,    ///< a duplicate gets this answer again
  release,  ///< the key is freed; a retry runs as new
  rerun,    ///< prepare is run again inside the same claim
  status,   ///< not a reply at all: a duplicate is told the current status
};

/// One row of the mapping table.
struct FailureTraits {
  FailureKind kind;
  std::string_view name;  ///< stable, snake_case, on every wire
  int grpc_code;          ///< google.rpc.Code
  int http_status;
  std::string_view iso8583;  ///< field 39 response code, two characters
  bool retryable;            ///< a later identical request may succeed
  bool terminal;             ///< ends the stream that carried the message
  bool breaks_order;         ///< dropping it leaves a hole in its key's order
  Remember remember;
  std::string_view meaning;  ///< one sentence for docs/errors.md
};

/// The row of `kind`; an unknown value reads as `internal`. Never fails.
const FailureTraits& traits(FailureKind kind) noexcept;
/// All rows, in the order of their numbers.
std::span<const FailureTraits> failure_table() noexcept;
/// The kind with this wire name, if there is one.
std::optional<FailureKind> failure_kind_from_name(std::string_view name) noexcept;

/// An immutable failure: kind (what callers branch on), code (what people search for), detail
/// (what, where, expected, got, what next), optional retry_after, optional key/value details.
/// Cheap to move and copy (16 bytes and a shared body).
class Failure {
 public:
  using Details = std::vector<std::pair<std::string, std::string>>;

  /// `code` is a stable snake_case word; empty means the kind's own name.
  Failure(FailureKind kind, std::string_view code, std::string detail);
  explicit Failure(FailureKind kind, std::string detail = {});

  FailureKind kind() const noexcept { return kind_; }
  std::string_view code() const noexcept;
  std::string_view detail() const noexcept;
  std::optional<std::chrono::milliseconds> retry_after() const noexcept;
  const Details& details() const noexcept;

  const FailureTraits& traits() const noexcept { return sluice::traits(kind_); }
  bool retryable() const noexcept { return traits().retryable; }

  /// Copies with one thing added.
  Failure with_retry_after(std::chrono::milliseconds after) const;
  Failure with(std::string key, std::string value) const;
  /// Prefixes the detail with where it happened: "opening /x: <detail>".
  Failure at(std::string_view where) const;

  /// "kind/code: detail", for logs and terminals.
  std::string to_string() const;
  bool operator==(const Failure& other) const noexcept;

 private:
  struct Body {
    std::string code;
    std::string detail;
    std::optional<std::chrono::milliseconds> retry_after;
    Details details;
  };
  FailureKind kind_;
  std::shared_ptr<const Body> body_;  // null: no code, no detail
};

template <class T>
using Result = std::expected<T, Failure>;
using Status = Result<void>;

inline std::unexpected<Failure> fail(FailureKind kind, std::string_view code, std::string detail) {
  return std::unexpected<Failure>(Failure(kind, code, std::move(detail)));
}
inline std::unexpected<Failure> fail(Failure failure) {
  return std::unexpected<Failure>(std::move(failure));
}

/// For broken invariants: prints the message and aborts, in release too.
[[noreturn]] void panic(std::string_view message, const char* file, int line);
#define SLUICE_ASSERT(condition, message)           \
  do {                                              \
    if (!(condition)) [[unlikely]]                  \
      ::sluice::panic(message, __FILE__, __LINE__); \
  } while (false)

// Early return of a failure from a function that returns Result. Not for coroutines on GCC 12.
#define SLUICE_TRY(expression)                                      \
  do {                                                              \
    auto sluice_try_result = (expression);                          \
    if (!sluice_try_result) [[unlikely]]                            \
      return std::unexpected(std::move(sluice_try_result).error()); \
  } while (false)
#define SLUICE_CONCAT_(a, b) a##b
#define SLUICE_CONCAT(a, b) SLUICE_CONCAT_(a, b)
#define SLUICE_ASSIGN(declaration, expression) \
  SLUICE_ASSIGN_(SLUICE_CONCAT(sluice_assign_, __LINE__), declaration, expression)
#define SLUICE_ASSIGN_(temporary, declaration, expression) \
  auto temporary = (expression);                           \
  if (!temporary) [[unlikely]]                             \
    return std::unexpected(std::move(temporary).error());  \
  declaration = std::move(*temporary)

}  // namespace sluice
