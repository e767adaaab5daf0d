#include "apps/voucher/faults.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "sluice/base/text.hpp"

namespace sluice::voucher {
namespace {

using Json = nlohmann::json;
using rpc::Answer;

std::unexpected<Failure> bad(std::string detail) {
  return fail(FailureKind::invalid_argument, "bad_fault_plan", std::move(detail));
}

// About normal, with mean 0 and deviation 1: the sum of twelve uniform numbers.
double normal(Random& random) {
  double sum = -6;
  for (int i = 0; i < 12; ++i) sum += random.unit();
  return sum;
}

std::string got(const Json& value) { return std::string(beginning_of(value.dump(-1, ' ', false, Json::error_handler_t::replace), 64)); }

Result<FailureKind> parse_error(const Json& value, const std::string& where) {
  if (value.is_string())
    if (const auto kind = failure_kind_from_name(value.get_ref<const std::string&>()); kind && *kind != FailureKind::none) return *kind;
  std::string names;
  for (int i = 1; i <= static_cast<int>(FailureKind::internal); ++i) names += (i == 1 ? "" : ", ") + std::string(traits(static_cast<FailureKind>(i)).name);
  return bad(fmt::format("{}.error: expected the name of a failure kind ({}), got {}", where, names, got(value)));
}

Result<FaultRule> parse_rule(const Json& json, const std::string& where) {
  if (!json.is_object()) return bad(where + ": expected an object");
  FaultRule rule;
  for (const auto& [name, value] : json.items()) {
    const auto number = [&](double max, auto& out) -> Status {
      if (!value.is_number() || value.get<double>() < 0 || value.get<double>() > max)
        return bad(fmt::format("{}.{}: expected a number from 0 to {}, got {}", where, name, max, got(value)));
      using T = std::remove_reference_t<decltype(out)>;
      if constexpr (std::is_same_v<T, double>)
        out = value.get<double>();
      else
        out = milliseconds(static_cast<std::int64_t>(value.get<double>()));
      return {};
    };
    constexpr double kHour = 3'600'000;
    if (name == "region" && !value.is_string())
      return bad(fmt::format("{}.region: expected the text of a region, got {}", where, got(value)));
    if (name == "region")
      rule.region = value.get<std::string>();
    else if (name == "error") {
      SLUICE_ASSIGN(rule.error, parse_error(value, where));
    } else if (name == "latency_ms")
      SLUICE_TRY(number(kHour, rule.latency));
    else if (name == "latency_p99_ms")
      SLUICE_TRY(number(kHour, rule.latency_p99));
    else if (name == "slow_start_ms")
      SLUICE_TRY(number(kHour, rule.slow_start));
    else if (name == "error_rate")
      SLUICE_TRY(number(1, rule.error_rate));
    else if (name == "hang_rate")
      SLUICE_TRY(number(1, rule.hang_rate));
    else if (name == "wrong_rate")
      SLUICE_TRY(number(1, rule.wrong_rate));
    else
      return bad(fmt::format("{}.{}: expected region, error, latency_ms, latency_p99_ms, "
                             "slow_start_ms, error_rate, hang_rate or wrong_rate, got {}",
                             where, beginning_of(name, 64), got(value)));
  }
  if (rule.slow_start.count() != 0 && rule.latency.count() == 0)
    return bad(fmt::format("{}.slow_start_ms: expected a latency_ms above 0, which it makes longer at first, got none", where));
  if (rule.latency_p99.count() != 0 && (rule.latency.count() == 0 || rule.latency_p99 < rule.latency))
    return bad(fmt::format("{}.latency_p99_ms: expected a latency_ms above 0 and no less than that, got {} and a latency_ms of {}",
                           where, rule.latency_p99.count(), rule.latency.count()));
  return rule;
}

}  // namespace

Result<FaultPlan> FaultPlan::parse(std::string_view text) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::parse_error& error) {
    const std::string_view before = text.substr(0, std::min(error.byte == 0 ? 0 : error.byte - 1, text.size()));
    const auto line = before.rfind('\n');
    return bad(fmt::format("line {}, column {}: expected JSON, a plan with rules and kill_after; it cannot be read on from there",
                           1 + std::ranges::count(before, '\n'), before.size() - (line == std::string_view::npos ? 0 : line + 1) + 1));
  }
  if (!json.is_object()) return bad("expected a JSON object with rules and kill_after, got " + std::string(beginning_of(text, 64)));
  FaultPlan plan;
  for (const auto& [name, value] : json.items()) {
    if (name == "kill_after" && !value.is_number_unsigned())
      return bad("kill_after: expected a whole number from 0, of questions after which the service ends itself (0: never), got " + got(value));
    if (name == "rules" && (!value.is_array() || value.size() > 100))
      return bad("rules: expected a list of at most 100, got " + (value.is_array() ? std::to_string(value.size()) + " rules" : got(value)));
    if (name == "kill_after") {
      plan.kill_after = value.get<std::uint64_t>();
    } else if (name == "rules") {
      for (std::size_t i = 0; i < value.size(); ++i) {
        SLUICE_ASSIGN(FaultRule rule, parse_rule(value[i], fmt::format("rules[{}]", i)));
        plan.rules.push_back(std::move(rule));
      }
    } else {
      return bad(std::string(beginning_of(name, 64)) + ": expected rules or kill_after, got " +
                 got(value));
    }
  }
  return plan;
}

std::string FaultPlan::to_json() const {
  Json list = Json::array();
  for (const auto& rule : rules)
    list.push_back({{"region", rule.region},
                    {"latency_ms", rule.latency.count()},
                    {"latency_p99_ms", rule.latency_p99.count()},
                    {"error_rate", rule.error_rate},
                    {"error", traits(rule.error).name},
                    {"hang_rate", rule.hang_rate},
                    {"wrong_rate", rule.wrong_rate},
                    {"slow_start_ms", rule.slow_start.count()}});
  return Json{{"rules", std::move(list)}, {"kill_after", kill_after}}.dump();
}

FaultPlan Faults::plan() const {
  const std::lock_guard lock(mutex_);
  return plan_;
}

Faults::Fate Faults::decide(const rpc::Command& command) {
  Fate fate;
  const std::lock_guard lock(mutex_);
  if (plan_.kill_after != 0 && ++seen_ >= plan_.kill_after) ::kill(::getpid(), SIGKILL);
  std::string region;
  for (const auto& rule : plan_.rules) {
    if (!rule.region.empty() && region.empty()) {
      const Json json = Json::parse(command.payload, nullptr, false);
      const auto found = json.is_object() ? json.find("region") : json.end();
      region = found != json.end() && found->is_string() ? found->get<std::string>() : "?";
    }
    if (!rule.region.empty() && rule.region != region) continue;
    double ms = static_cast<double>(rule.latency.count());
    if (rule.latency_p99 > rule.latency && ms > 0)
      ms *= std::exp(std::log(static_cast<double>(rule.latency_p99.count()) / ms) / 2.326 * normal(random_));
    if (const auto age = std::chrono::duration<double, std::milli>(clock_.now() - since_).count();
        rule.slow_start.count() > 0 && age < static_cast<double>(rule.slow_start.count()))
      ms *= 10 - 9 * age / static_cast<double>(rule.slow_start.count());
    fate.wait = milliseconds(static_cast<std::int64_t>(std::min(ms, 3.6e6)));
    fate.hang = random_.unit() < rule.hang_rate;
    fate.wrong = random_.unit() < rule.wrong_rate;
    if (random_.unit() < rule.error_rate)
      fate.failure = Failure(rule.error, "fault_injected", "the fault plan says that this request fails");
    break;
  }
  return fate;
}

// A request that waits for its fate. Owns itself; ends when its caller leaves.
class Faults::Held {
 public:
  Held(Faults& owner, rpc::Invocation& invocation, Fate fate, std::shared_ptr<const rpc::Handler> handler)
      : owner_(owner), invocation_(invocation), fate_(std::move(fate)), handler_(std::move(handler)) {
    ticket_->lane = invocation.lane;
    ticket_->held = this;
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  ~Held() {
    ticket_->held = nullptr;
    const std::lock_guard lock(owner_.mutex_);
    owner_.waiting_.erase(ticket_);
  }
  void begin(Clock& clock) {
    {
      const std::lock_guard lock(owner_.mutex_);
      owner_.waiting_.insert(ticket_);
    }
    Instant until = clock.now() + fate_.wait;
    if (fate_.hang) until = std::min(invocation_.command.deadline, clock.now() + std::chrono::minutes(10));
    gone_.link(invocation_.scope, [](void* self) noexcept { static_cast<Held*>(self)->give_up(); }, this);
    timer_.arm(*invocation_.lane, until, [](void* self) noexcept { static_cast<Held*>(self)->meet(); }, this);
  }
  void spare() {
    timer_.cancel();
    fate_ = {};
    meet();
  }

 private:
  void give_up() noexcept {
    const std::unique_ptr<Held> self(this);
    timer_.cancel();
    invocation_.finish(Answer::of(Failure(invocation_.scope.reason(), "cancelled", "the caller has left")));
  }
  void meet() noexcept {
    const std::unique_ptr<Held> self(this);
    gone_.unlink();
    if (fate_.hang)
      return invocation_.finish(Answer::of(Failure(FailureKind::timeout, "fault_hang", "the fault plan let it hang")));
    if (fate_.failure) return invocation_.finish(Answer::of(*fate_.failure));
    if (fate_.wrong) return invocation_.finish(Answer::of(Reply::ok(R"({"nonsense":[1,"two",null]})")));
    (*handler_)(invocation_);
  }
  Faults& owner_;
  rpc::Invocation& invocation_;
  Fate fate_;
  const std::shared_ptr<const rpc::Handler> handler_;
  CancelListener gone_;
  Timer timer_;
  const std::shared_ptr<Ticket> ticket_ = std::make_shared<Ticket>();
};

// Whoever waits under the plan before goes on as if there had been none: each on its own lane.
void Faults::set(FaultPlan plan) {
  std::set<std::shared_ptr<Ticket>> waiting;
  {
    const std::lock_guard lock(mutex_);
    plan_ = std::move(plan);
    since_ = clock_.now();
    seen_ = 0;
    any_.store(!plan_.rules.empty() || plan_.kill_after != 0, std::memory_order_release);
    waiting = std::exchange(waiting_, {});
  }
  for (const auto& ticket : waiting)
    ticket->lane->post([ticket] {
      if (ticket->held != nullptr) ticket->held->spare();
    });
}

rpc::Handler Faults::around(rpc::Handler handler) {
  return [this, shared = std::make_shared<const rpc::Handler>(std::move(handler))](rpc::Invocation& invocation) {
    if (!any_.load(std::memory_order_acquire)) return (*shared)(invocation);
    Fate fate = decide(invocation.command);
    if (fate.none()) return (*shared)(invocation);
    (new Held(*this, invocation, std::move(fate), shared))->begin(clock_);
  };
}

Status Faults::add_commands(rpc::Registry& registry, const std::string& service) {
  rpc::CommandSpec set;
  set.name = "voucher.faults." + service + ".set";
  set.summary = "Replaces the fault plan of this service, also for what waits under the one before; {} ends all faults.";
  set.app = "sluice";  // for every app on this server, and one plan ends the process
  set.shadow = false;
  set.idempotency = rpc::KeyUse::none;
  set.handler = [this](rpc::Invocation& invocation) {
    auto plan = FaultPlan::parse(invocation.command.payload);
    if (!plan) return invocation.finish(Answer::of(std::move(plan).error()));
    this->set(*std::move(plan));
    invocation.finish(Answer::of(Reply::ok(this->plan().to_json())));
  };
  SLUICE_TRY(registry.add(std::move(set)));
  rpc::CommandSpec get;
  get.name = "voucher.faults." + service + ".get";
  get.summary = "The fault plan of this service.";
  get.app = "sluice";
  get.shadow = false;
  get.idempotency = rpc::KeyUse::none;
  get.handler = [this](rpc::Invocation& invocation) {
    invocation.finish(Answer::of(Reply::ok(plan().to_json())));
  };
  return registry.add(std::move(get));
}

}  // namespace sluice::voucher
