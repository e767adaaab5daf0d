#include "apps/voucher/downstream.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/voucher/code_service.hpp"
#include "apps/voucher/model.hpp"
#include "apps/voucher/user_service.hpp"

namespace sluice::voucher {
namespace {

using Json = nlohmann::json;

// Ids of the caches: "namespace|region|id". None of the parts may hold the bar.
std::string cache_id(const Namespace& ns, const std::string& region, const std::string& id) {
  return ns.text() + "|" + region + "|" + id;
}
struct Parts {
  std::string ns, region, id;
};
Parts parts_of(const std::string& id) {
  const auto first = id.find('|'), second = id.find('|', first + 1);
  return {id.substr(0, first), id.substr(first + 1, second - first - 1), id.substr(second + 1)};
}

Failure garbage(std::string_view who) {
  return {FailureKind::unavailable, "bad_answer", std::string(who) + " answered what is no answer to the question"};
}

Failure unreachable(std::string_view code, const Failure& why) {
  Failure failure(FailureKind::unavailable, std::string(code), why.to_string());
  return std::move(failure).with_retry_after(why.retry_after().value_or(seconds(1)));
}

constexpr std::size_t kMaxFinishedPerCall = 100;
// Of one call: an answer of these reads and travels well within its time and a message's size.
constexpr std::int64_t kMaxCodesPerCall = 10'000;
constexpr milliseconds kMaxLease = std::chrono::hours(24 * 7);
constexpr std::int64_t kMaxOrdinal = 1'000'000'000'000;

/// What the code service answers. decode(): null for what is none, which the guards count against it.
struct CodesAnswer {
  milliseconds lease{0};
  std::set<std::string> named, none;
  std::map<std::string, std::string> universal;
  std::vector<LeasedSegment> segments;

  static std::shared_ptr<const void> decode(ByteView body);
  bool read(ByteView body);
};

std::shared_ptr<const void> CodesAnswer::decode(ByteView body) {
  auto answer = std::make_shared<CodesAnswer>();
  return answer->read(body) ? answer : nullptr;
}

bool CodesAnswer::read(ByteView body) {
  const Json json = Json::parse(body, nullptr, false);
  if (!json.is_object()) return false;
  try {
    const auto& length = json.at("lease_ms");
    if (!length.is_number_integer() || length < 1 || length > kMaxLease.count() || !json.at("segments").is_array()) return false;
    lease = milliseconds(length.get<std::int64_t>());
    for (const auto& one : json.at("segments")) {
      const auto voucher = one.at("voucher").get<std::string>();
      named.insert(voucher);
      if (one.value("none", false)) {
        none.insert(voucher);
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
      const auto& first = one.at("first");
      const auto& token = one.at("token");
      if (!first.is_number_integer() || first < 0 || first > kMaxOrdinal || !token.is_number_unsigned())
        return false;
      segment.first = first.get<std::int64_t>();
      segment.token = token.get<std::uint64_t>();
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

/// What the user service answers, in the order of the question.
struct UsersAnswer {
  std::vector<bool> exists;

  static std::shared_ptr<const void> decode(ByteView body) {
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
};

}  // namespace

struct Downstream::PerLane {
  PerLane(Downstream& self, Lane& on)
      : lane(on),
        codes(on, self.random_, [&self](std::vector<std::string> ids) { return self.fetch_codes(std::move(ids)); },
              code_options(self.options_)),
        users(on, self.random_, [&self](std::vector<std::string> ids) { return self.fetch_users(std::move(ids)); },
              user_options(self.options_)) {}
  static resilience::CacheAsideOptions code_options(const DownstreamOptions& options) {
    resilience::CacheAsideOptions out;
    out.ttl = Duration::zero();  // the supply is what is remembered; this joins those who come together
    out.absent_ttl = seconds(1);
    out.flight_deadline = options.timeout;
    return out;
  }
  static resilience::CacheAsideOptions user_options(const DownstreamOptions& options) {
    resilience::CacheAsideOptions out;
    out.max_entries = 100'000;
    out.ttl = options.users_ttl;
    out.absent_ttl = options.unknown_users_ttl;
    out.stale = options.users_ttl;
    out.flight_deadline = options.timeout;
    return out;
  }
  Lane& lane;
  resilience::CacheAside<Marker> codes;
  resilience::CacheAside<bool> users;
};

Downstream::Downstream(CodeSupply& supply, rpc::Client* codes, rpc::Client* users, Clock& clock, Random& random,
                       DownstreamOptions options)
    : supply_(supply),
      codes_(codes),
      users_(users),
      clock_(clock),
      random_(random),
      options_(std::move(options)),
      run_(fmt::format("{}-{:016x}", options_.owner, random.next())) {}
Downstream::~Downstream() = default;

Downstream::PerLane& Downstream::here(Lane& lane) {
  const std::lock_guard lock(mutex_);
  for (auto& one : lanes_)
    if (&one->lane == &lane) return *one;
  lanes_.push_back(std::make_unique<PerLane>(*this, lane));
  return *lanes_.back();
}

const rpc::RemoteCommand& Downstream::command(rpc::Client& client, std::string_view name, const std::string& region,
                                              bool read_only, std::shared_ptr<const void> (*decode)(ByteView)) {
  rpc::RemoteCommand command;
  command.decode = decode;
  command.name = std::string(name) + "." + region;
  command.callee = name;
  command.read_only = read_only;
  return client.add(std::move(command));
}

Task<Result<std::shared_ptr<CodeHold>>> Downstream::code(Namespace ns, std::string region, std::string voucher, Told told) {
  TaskContext& context = co_await current_context();
  PerLane& lane = here(*context.lane);
  const std::string id = cache_id(ns, region, voucher);
  // Others on this lane may take what a fetch brought: a few rounds, then it is a rush too large.
  for (int round = 0; round < 8; ++round) {
    if (auto hold = supply_.take(ns.text(), voucher, clock_.now())) {
      if (round == 0) at_hand_.fetch_add(1, std::memory_order_relaxed);
      co_return hold;
    }
    if (const Failure* known = told ? told->of_code(voucher) : nullptr) {
      Failure why = unreachable("code_service_unavailable", *known);
      co_return fail(std::move(why));
    }
    if (round == 0) code_waits_.fetch_add(1, std::memory_order_relaxed);
    std::vector<std::string> ids;
    ids.push_back(id);
    auto asking = lane.codes.get(std::move(ids));
    auto found = co_await asking;
    if (!found[0]) {
      Failure why = unreachable("code_service_unavailable", found[0].error());
      co_return fail(std::move(why));
    }
    if (!*found[0]) co_return std::shared_ptr<CodeHold>();
  }
  Failure rush(FailureKind::overloaded, "code_rush", "others took the codes as fast as they came; try again");
  co_return fail(std::move(rush).with_retry_after(milliseconds(100)));
}

Task<Result<bool>> Downstream::user_exists(Namespace ns, std::string region, std::string user, Told told) {
  TaskContext& context = co_await current_context();
  users_asked_.fetch_add(1, std::memory_order_relaxed);
  if (const Failure* known = told ? told->of_user(user) : nullptr) {
    Failure why = unreachable("user_service_unavailable", *known);
    co_return fail(std::move(why));
  }
  std::vector<std::string> ids;
  ids.push_back(cache_id(ns, region, user));
  auto asking = here(*context.lane).users.get(std::move(ids));
  auto found = co_await asking;
  if (!found[0]) {
    Failure why = unreachable("user_service_unavailable", found[0].error());
    co_return fail(std::move(why));
  }
  co_return found[0]->has_value();
}

Task<void> Downstream::prefetch_users(Namespace ns, std::string region, std::vector<std::string> users, Told told) {
  TaskContext& context = co_await current_context();
  if (users.empty()) co_return;
  std::vector<std::string> ids;
  for (const auto& user : users) ids.push_back(cache_id(ns, region, user));
  auto asking = here(*context.lane).users.get(std::move(ids));
  const auto found = co_await asking;
  for (std::size_t i = 0; i < users.size(); ++i)
    if (!found[i]) told->users.emplace(users[i], found[i].error());
}

Task<void> Downstream::prefetch_codes(Namespace ns, std::string region, std::vector<std::string> vouchers, Told told) {
  TaskContext& context = co_await current_context();
  std::erase_if(vouchers, [&](const std::string& voucher) { return supply_.has(ns.text(), voucher, clock_.now()); });
  if (vouchers.empty()) co_return;
  std::vector<std::string> ids;
  for (const auto& voucher : vouchers) ids.push_back(cache_id(ns, region, voucher));
  auto asking = here(*context.lane).codes.get(std::move(ids));
  const auto found = co_await asking;
  for (std::size_t i = 0; i < vouchers.size(); ++i)
    if (!found[i]) told->codes.emplace(vouchers[i], found[i].error());
}

Task<Result<std::vector<resilience::CacheAside<Downstream::Marker>::Found>>> Downstream::fetch_codes(
    std::vector<std::string> ids) {
  using Found = resilience::CacheAside<Marker>::Found;
  // All ids of one flight come from one batch or one item: one namespace and one region.
  const Parts common = parts_of(ids.front());
  Json vouchers = Json::array(), resumed = Json::array(), finished = Json::array();
  std::set<std::string> asked;
  bool resume = false;
  for (const auto& id : ids) {
    const Parts parts = parts_of(id);
    vouchers.push_back(parts.id);
    asked.insert(parts.id);
    resume = resume || !supply_.known(parts.ns, parts.id);
  }
  auto told = supply_.take_finished(common.ns, std::min(kMaxFinishedPerCall, kMaxVouchersPerCall - ids.size()));
  for (const auto& one : told)
    finished.push_back({{"voucher", one.voucher}, {"first", one.first}, {"token", one.token}});
  const std::int64_t count = std::clamp<std::int64_t>(kMaxCodesPerCall / std::ssize(ids), 1, options_.segment_codes);
  const Json body{{"owner", options_.owner},     {"region", common.region}, {"vouchers", vouchers},
                  {"count", count},                  {"resume", resume},     {"finished", finished}};
  rpc::CallContext call;
  call.ns = Namespace::parse(common.ns).value_or(Namespace("voucher"));
  call.idempotency_key = fmt::format("{}-{}", run_, asked_.fetch_add(1, std::memory_order_relaxed));
  const Instant asked_at = clock_.now();
  auto calling = codes_->call(command(*codes_, kGetCodes, common.region, false, &CodesAnswer::decode), std::move(call), body.dump());
  auto response = co_await calling;
  if (!response) {
    supply_.not_told(common.ns, std::move(told));
    co_return fail(response.error());
  }
  const auto answer = std::static_pointer_cast<const CodesAnswer>(response->message);
  // Codes of a voucher that nobody asked for may be another's: nothing of such an answer is taken.
  Failure wrong = garbage("the code service");
  if (!std::ranges::includes(asked, answer->named)) co_return fail(std::move(wrong));
  std::set<std::string> came;
  // A tenth of the lease is kept back: the clocks of two machines do not run alike.
  const Instant until = asked_at + Duration(answer->lease) * 9 / 10;
  for (const auto& [voucher, text] : answer->universal) {
    came.insert(voucher);
    supply_.add_universal(common.ns, voucher, text, until);
  }
  for (LeasedSegment segment : answer->segments) {
    came.insert(segment.voucher);
    const Status added = supply_.add(common.ns, std::move(segment), until);
    if (!added) co_return fail(added.error());
  }
  std::vector<Found> answers;
  for (const auto& id : ids) {
    const std::string voucher = parts_of(id).id;
    if (came.contains(voucher))
      answers.emplace_back(std::optional<Marker>(Marker{}));
    else if (answer->none.contains(voucher))
      answers.emplace_back(std::optional<Marker>());
    else
      answers.emplace_back(fail(wrong));
  }
  co_return answers;
}

Task<Result<std::vector<resilience::CacheAside<bool>::Found>>> Downstream::fetch_users(std::vector<std::string> ids) {
  using Found = resilience::CacheAside<bool>::Found;
  const Parts common = parts_of(ids.front());
  Json users = Json::array();
  for (const auto& id : ids) users.push_back(parts_of(id).id);
  const Json body{{"region", common.region}, {"users", users}};
  user_calls_.fetch_add(1, std::memory_order_relaxed);
  rpc::CallContext call;
  call.ns = Namespace::parse(common.ns).value_or(Namespace("voucher"));
  auto calling = users_->call(command(*users_, kUserExists, common.region, true, &UsersAnswer::decode), std::move(call), body.dump());
  auto response = co_await calling;
  if (!response) co_return fail(response.error());
  const auto answer = std::static_pointer_cast<const UsersAnswer>(response->message);
  Failure wrong = garbage("the user service");
  if (answer->exists.size() != ids.size()) co_return fail(std::move(wrong));
  std::vector<Found> answers;
  for (const bool exists : answer->exists) answers.emplace_back(exists ? std::optional<bool>(true) : std::nullopt);
  co_return answers;
}

Downstream::Stats Downstream::stats() const {
  const auto now = [](const std::atomic<std::uint64_t>& one) { return one.load(std::memory_order_relaxed); };
  return {now(asked_), now(at_hand_), now(code_waits_), now(user_calls_), now(users_asked_)};
}

}  // namespace sluice::voucher
