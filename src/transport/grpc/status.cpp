#include "transport/grpc/status.hpp"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>

#include "sluice/base/text.hpp"
#include "sluice/resilience/retry.hpp"
#include "sluice/wire/details.pb.h"

namespace sluice::transport {

namespace {

constexpr std::string_view kErrorInfo = "type.googleapis.com/google.rpc.ErrorInfo";
constexpr std::string_view kRetryInfo = "type.googleapis.com/google.rpc.RetryInfo";
constexpr std::string_view kDomain = "sluice";
// A client takes 8 KiB of metadata in all by default, in base64. Source: GRPC_ARG_MAX_METADATA_SIZE.
constexpr std::size_t kDataMax = 2048;
constexpr std::size_t kDetailMax = 1024;

// ErrorInfo's reason is in capitals. Source: google/rpc/error_details.proto.
std::string mapped(std::string_view text, char from, char to) {
  std::string out(text);
  for (char& c : out)
    if (c >= from && c <= from + 25) c = static_cast<char>(c - from + to);
  return out;
}

// A map has no order of its own; the same failure must be the same bytes.
std::string bytes_of(const google::protobuf::MessageLite& message) {
  std::string out;
  {
    google::protobuf::io::StringOutputStream into(&out);
    google::protobuf::io::CodedOutputStream coded(&into);
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  return out;
}

void add(wire::Status& status, std::string_view type, const google::protobuf::MessageLite& detail) {
  auto* any = status.add_details();
  any->set_type_url(std::string(type));
  any->set_value(bytes_of(detail));
}

FailureKind kind_of_code(grpc::StatusCode code) noexcept {
  using enum FailureKind;
  switch (code) {
    case grpc::INVALID_ARGUMENT:
    case grpc::OUT_OF_RANGE:
    case grpc::UNIMPLEMENTED:
      return invalid_argument;
    case grpc::UNAUTHENTICATED:
      return unauthenticated;
    case grpc::PERMISSION_DENIED:
      return forbidden;
    case grpc::NOT_FOUND:
      return not_found;
    case grpc::ALREADY_EXISTS:
      return already_exists;
    case grpc::FAILED_PRECONDITION:
      return precondition_failed;
    case grpc::ABORTED:
      return version_conflict;
    case grpc::RESOURCE_EXHAUSTED:
      return overloaded;
    case grpc::UNAVAILABLE:
      return unavailable;
    case grpc::DEADLINE_EXCEEDED:
      return timeout;
    case grpc::CANCELLED:
      return cancelled;
    case grpc::DATA_LOSS:
      return corrupt;
    case grpc::UNKNOWN:
      return unknown_outcome;
    default:
      return internal;
  }
}

}  // namespace

grpc::Status to_grpc_status(const Failure& failure, const StatusContext& context) {
  const auto& row = failure.traits();
  wire::Status status;
  status.set_code(row.grpc_code);
  status.set_message(std::string(beginning_of(failure.detail().empty() ? row.meaning : failure.detail(), kDetailMax)));

  wire::ErrorInfo info;
  info.set_reason(mapped(failure.code().empty() ? row.name : failure.code(), 'a', 'A'));
  info.set_domain(std::string(kDomain));
  auto& metadata = *info.mutable_metadata();
  for (const auto& [key, value] : failure.details())
    if (value.size() <= kDetailMax) metadata[key] = value;
  metadata["kind"] = std::string(row.name);
  metadata["retryable"] = row.retryable ? "true" : "false";
  if (!context.correlation.empty()) metadata["correlation_id"] = std::string(context.correlation);
  if (context.exchange) metadata["transaction"] = to_string(context.exchange);
  if (!context.data.empty() && context.data.size() <= kDataMax)
    metadata["data"] = std::string(context.data);
  add(status, kErrorInfo, info);

  if (const auto after = failure.retry_after()) {
    wire::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(after->count() / 1000);
    retry.mutable_retry_delay()->set_nanos(static_cast<int>(after->count() % 1000) * 1'000'000);
    add(status, kRetryInfo, retry);
  }
  return {static_cast<grpc::StatusCode>(row.grpc_code), status.message(),
          bytes_of(status)};
}

Failure from_grpc_status(const grpc::Status& status) {
  FailureKind kind = kind_of_code(status.error_code());
  std::string code = "grpc_" + std::to_string(static_cast<int>(status.error_code()));
  Failure::Details details;
  std::optional<milliseconds> after;
  wire::Status wire;
  if (wire.ParseFromString(status.error_details())) {
    for (const auto& any : wire.details()) {
      wire::ErrorInfo info;
      wire::RetryInfo retry;
      if (any.type_url() == kErrorInfo && info.ParseFromString(any.value())) {
        if (!info.reason().empty()) code = mapped(info.reason(), 'A', 'a');
        for (const auto& [key, value] : info.metadata()) {
          const auto named = key == "kind" && info.domain() == kDomain
                                 ? failure_kind_from_name(value)
                                 : std::nullopt;
          if (named && *named != FailureKind::none)
            kind = *named;
          else if (key != "kind" && key != "retryable" && key != resilience::kGivenUp)  // a word among its own layers
            details.emplace_back(key, value);
        }
      } else if (any.type_url() == kRetryInfo && retry.ParseFromString(any.value())) {
        // A delay beyond a day is as good as a day; a negative one means: do not retry.
        const auto& delay = retry.retry_delay();
        after = milliseconds(std::clamp<std::int64_t>(delay.seconds(), -1, 86'400) * 1000 +
                             std::clamp(delay.nanos(), -999'999'999, 999'999'999) / 1'000'000);
      }
    }
  }
  std::ranges::sort(details);  // a protobuf map has no order
  Failure failure(kind, code, status.error_message());
  if (after) failure = failure.with_retry_after(*after);
  for (auto& [key, value] : details) failure = failure.with(std::move(key), std::move(value));
  return failure;
}

}  // namespace sluice::transport
