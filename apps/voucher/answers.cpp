#include "apps/voucher/answers.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/voucher/code_service.hpp"
#include "apps/voucher/model.hpp"
#include "apps/voucher/user_service.hpp"

namespace sluice::voucher {
namespace {

using Json = nlohmann::json;

constexpr milliseconds kMaxLease = std::chrono::hours(24 * 7);
constexpr std::int64_t kMaxOrdinal = 1'000'000'000'000;

bool within(const Json& number, std::int64_t least, std::int64_t most) {
  return number.is_number_integer() && number >= least && number <= most;
}

// Codes of a voucher that nobody asked for may be another's, and one that is left out has no answer.
bool fits(const Json& question, const CodesAnswer& answer) {
  std::set<std::string> asked;
  for (const auto& one : question.at("vouchers")) asked.insert(one.get<std::string>());
  return asked == answer.named;
}

bool fits(const Json& question, const UsersAnswer& answer) {
  return question.at("users").size() == answer.exists.size();
}

class CheckAnswers final : public rpc::Interceptor {
 public:
  std::string_view name() const noexcept override { return "answers"; }

  Task<Result<rpc::Response>> intercept(const rpc::RemoteCommand& command, const rpc::CallContext& context,
                                        const rpc::Request& request, rpc::Next next) override {
    Task<Result<rpc::Response>> rest = next(context, request);
    Result<rpc::Response> response = co_await rest;
    if (!response || answers(command, *request.body, response->message.get())) co_return response;
    const std::string what = "'" + command.name + "' answered another question than was asked";
    // It was answered, so it ran: what it did is all that is unknown.
    Failure wrong(command.read_only ? FailureKind::unavailable : FailureKind::unknown_outcome, "bad_answer", what);
    co_return fail(std::move(wrong));
  }

 private:
  static bool answers(const rpc::RemoteCommand& command, ByteView body, const void* message) {
    const Json question = Json::parse(body, nullptr, false);
    if (command.callee == kGetCodes) return fits(question, *static_cast<const CodesAnswer*>(message));
    if (command.callee == kUserExists) return fits(question, *static_cast<const UsersAnswer*>(message));
    return true;
  }
};

}  // namespace

std::shared_ptr<const void> CodesAnswer::decode(ByteView body) {
  auto answer = std::make_shared<CodesAnswer>();
  return answer->read(body) ? answer : nullptr;
}

bool CodesAnswer::read(ByteView body) {
  const Json json = Json::parse(body, nullptr, false);
  if (!json.is_object()) return false;
  try {
    if (!within(json.at("lease_ms"), 1, kMaxLease.count()) || !json.at("segments").is_array()) return false;
    lease = milliseconds(json.at("lease_ms").get<std::int64_t>());
    for (const auto& one : json.at("segments")) {
      const auto voucher = one.at("voucher").get<std::string>();
      named.insert(voucher);
      if (one.value("none", false)) {
        const auto until = one.find("leased_ms");
        if (until == one.end()) {
          none.insert(voucher);
          continue;
        }
        if (!within(*until, 0, kMaxLease.count())) return false;
        leased[voucher] = milliseconds(until->get<std::int64_t>());
        continue;
      }
      if (const auto shared = one.find("universal"); shared != one.end()) {
        const auto text = shared->get<std::string>();
        if (!valid_code(text)) return false;
        universal[voucher] = text;
        continue;
      }
      LeasedSegment segment;
      segment.voucher = voucher;
      if (!within(one.at("first"), 0, kMaxOrdinal) || !one.at("token").is_number_unsigned()) return false;
      segment.first = one.at("first").get<std::int64_t>();
      segment.token = one.at("token").get<std::uint64_t>();
      segment.codes = one.at("codes").get<std::vector<std::string>>();
      if (segment.codes.empty() || std::ranges::any_of(segment.codes, [](const auto& c) { return !valid_code(c); }))
        return false;
      segments.push_back(std::move(segment));
    }
  } catch (const Json::exception&) {
    return false;
  }
  return true;
}

std::shared_ptr<const void> UsersAnswer::decode(ByteView body) {
  const Json json = Json::parse(body, nullptr, false);
  const auto list = json.is_object() ? json.find("exists") : json.end();
  if (!json.is_object() || list == json.end() || !list->is_array()) return nullptr;
  auto answer = std::make_shared<UsersAnswer>();
  for (const auto& one : *list) {
    if (!one.is_boolean()) return nullptr;
    answer->exists.push_back(one.get<bool>());
  }
  return answer;
}

std::shared_ptr<rpc::Interceptor> check_answers() { return std::make_shared<CheckAnswers>(); }

}  // namespace sluice::voucher
