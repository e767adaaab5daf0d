// The one table from failure kinds to every wire, and the Failure value.
#include "sluice/base/failure.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>

namespace sluice {
namespace {

using K = FailureKind;
using R = Remember;

// gRPC codes by number (google.rpc.Code): 1 CANCELLED, 2 UNKNOWN, 3 INVALID_ARGUMENT,
// 4 DEADLINE_EXCEEDED, 5 NOT_FOUND, 6 ALREADY_EXISTS, 7 PERMISSION_DENIED, 8 RESOURCE_EXHAUSTED,
// 9 FAILED_PRECONDITION, 10 ABORTED, 13 INTERNAL, 14 UNAVAILABLE, 15 DATA_LOSS, 16 UNAUTHENTICATED.
// Response codes are those of ISO 8583 field 39 as commonly used by switches.
constexpr std::array kTable{
    // kind, name, grpc, http, iso, retryable, terminal, breaks_order, remember, meaning
    FailureTraits{K::none, "none", 0, 200, "00", false, false, false, R::store, "No failure."},
    FailureTraits{K::invalid_argument, "invalid_argument", 3, 400, "30", false, false, true,
                  R::store, "The request can never succeed as it is written."},
    FailureTraits{K::unauthenticated, "unauthenticated", 16, 401, "63", false, true, true,
                  R::release, "No valid credential came with the request."},
    FailureTraits{K::forbidden, "forbidden", 7, 403, "57", false, false, true, R::release,
                  "The principal may not run this command."},
    FailureTraits{K::not_found, "not_found", 5, 404, "25", false, false, true, R::store,
                  "What the request names does not exist."},
    FailureTraits{K::already_exists, "already_exists", 6, 409, "94", false, false, true, R::store,
                  "What the request would create exists already."},
    FailureTraits{K::precondition_failed, "precondition_failed", 9, 409, "51", false, false, true,
                  R::store,
                  "A named precondition of the commit did not hold; nothing of it was applied."},
    FailureTraits{K::fingerprint_mismatch, "fingerprint_mismatch", 9, 422, "94", false, false, true,
                  R::release,
                  "The idempotency key was used before with another payload; nothing ran."},
    FailureTraits{K::version_conflict, "version_conflict", 10, 409, "09", true, false, true,
                  R::rerun, "A value read by the request changed before it could commit."},
    FailureTraits{K::in_progress, "in_progress", 10, 409, "09", true, false, true, R::status,
                  "The first request with this key is still running."},
    FailureTraits{K::rejected, "rejected", 9, 422, "05", false, false, true, R::store,
                  "A stage refused the transaction; it was aborted and left no effect."},
    FailureTraits{K::rate_limited, "rate_limited", 8, 429, "61", true, false, true, R::release,
                  "A rate or quota was used up; try again after the time given."},
    FailureTraits{K::overloaded, "overloaded", 8, 503, "91", true, false, true, R::release,
                  "A bound of the server was reached; nothing ran."},
    FailureTraits{K::unavailable, "unavailable", 14, 503, "91", true, false, true, R::release,
                  "Something needed is down or closed; nothing took effect."},
    FailureTraits{K::timeout, "timeout", 4, 504, "68", true, false, true, R::release,
                  "The deadline passed before anything took effect."},
    FailureTraits{K::cancelled, "cancelled", 1, 499, "68", false, true, true, R::release,
                  "The caller went away before anything took effect."},
    FailureTraits{K::unknown_outcome, "unknown_outcome", 2, 504, "68", false, false, true,
                  R::status, "It may or may not have taken effect; ask again with the same key."},
    FailureTraits{
        K::in_doubt, "in_doubt", 2, 202, "09", false, false, true, R::status,
        "Decided, but an external effect is unsettled; it is listed, retried and can be settled."},
    FailureTraits{K::pending, "pending", 4, 504, "09", false, false, false, R::status,
                  "Accepted and not finished; ask for the transaction by its id."},
    FailureTraits{K::shutting_down, "shutting_down", 14, 503, "91", true, true, true, R::release,
                  "The server is draining; another node or a later try will do."},
    FailureTraits{K::ordering, "ordering", 10, 409, "09", false, true, true, R::release,
                  "An earlier message of the same key did not finish, so this one may not run."},
    FailureTraits{K::too_large, "too_large", 8, 413, "30", false, false, true, R::release,
                  "A size limit of the server was exceeded."},
    FailureTraits{K::corrupt, "corrupt", 15, 500, "96", false, true, true, R::release,
                  "Stored data does not read back as written."},
    FailureTraits{K::resource_limit, "resource_limit", 8, 507, "96", false, false, true, R::store,
                  "A limit of the sandbox was hit."},
    FailureTraits{K::internal, "internal", 13, 500, "96", false, false, true, R::release,
                  "A defect or an exception of foreign code; nothing took effect."},
};

constexpr bool table_is_in_order() {
  for (std::size_t i = 0; i < kTable.size(); ++i)
    if (static_cast<std::size_t>(kTable[i].kind) != i) return false;
  return true;
}
static_assert(table_is_in_order(), "a row's place is its number");

}  // namespace

const FailureTraits& traits(FailureKind kind) noexcept {
  const auto index = static_cast<std::size_t>(kind);
  return kTable[index < kTable.size() ? index : static_cast<std::size_t>(K::internal)];
}

std::span<const FailureTraits> failure_table() noexcept { return kTable; }

std::optional<FailureKind> failure_kind_from_name(std::string_view name) noexcept {
  for (const auto& row : kTable)
    if (row.name == name) return row.kind;
  return std::nullopt;
}

Failure::Failure(FailureKind kind, std::string_view code, std::string detail) : kind_(kind) {
  if (!code.empty() || !detail.empty())
    body_ = std::make_shared<const Body>(Body{std::string(code), std::move(detail), {}, {}});
}

Failure::Failure(FailureKind kind, std::string detail) : Failure(kind, {}, std::move(detail)) {}

std::string_view Failure::code() const noexcept {
  return body_ && !body_->code.empty() ? std::string_view(body_->code) : traits().name;
}

std::string_view Failure::detail() const noexcept {
  return body_ ? std::string_view(body_->detail) : std::string_view();
}

std::optional<std::chrono::milliseconds> Failure::retry_after() const noexcept {
  return body_ ? body_->retry_after : std::nullopt;
}

const Failure::Details& Failure::details() const noexcept {
  static const Details kEmpty;
  return body_ ? body_->details : kEmpty;
}

Failure Failure::with_retry_after(std::chrono::milliseconds after) const {
  Failure copy(kind_);
  Body body = body_ ? *body_ : Body{};
  body.retry_after = after;
  copy.body_ = std::make_shared<const Body>(std::move(body));
  return copy;
}

Failure Failure::with(std::string key, std::string value) const {
  Failure copy(kind_);
  Body body = body_ ? *body_ : Body{};
  body.details.emplace_back(std::move(key), std::move(value));
  copy.body_ = std::make_shared<const Body>(std::move(body));
  return copy;
}

Failure Failure::at(std::string_view where) const {
  Failure copy(kind_);
  Body body = body_ ? *body_ : Body{};
  body.detail = std::string(where) + ": " + body.detail;
  copy.body_ = std::make_shared<const Body>(std::move(body));
  return copy;
}

std::string Failure::to_string() const {
  std::string text(traits().name);
  if (code() != traits().name) text.append("/").append(code());
  if (!detail().empty()) text.append(": ").append(detail());
  return text;
}

bool Failure::operator==(const Failure& other) const noexcept {
  return kind_ == other.kind_ && code() == other.code() && detail() == other.detail() &&
         retry_after() == other.retry_after() && details() == other.details();
}

void panic(std::string_view message, const char* file, int line) {
  std::fprintf(stderr, "sluice: broken invariant at %s:%d: %.*s\n", file, line,
               static_cast<int>(message.size()), message.data());
  std::abort();
}

}  // namespace sluice
