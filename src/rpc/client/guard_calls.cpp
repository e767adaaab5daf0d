#include <map>
#include <shared_mutex>

#include "sluice/resilience/guarded.hpp"
#include "sluice/rpc/interceptors.hpp"

namespace sluice::rpc {

namespace {

// What the channel says of time is a timeout to the protector also where the effect is unknown.
resilience::Outcome outcome_of_call(const Failure& failure) {
  if (failure.kind() == FailureKind::unknown_outcome && failure.code() == "deadline_exceeded")
    return resilience::Outcome::timeout;
  if (failure.kind() == FailureKind::unknown_outcome && failure.code() == "cancelled_after_sending")
    return resilience::Outcome::cancelled;
  return resilience::outcome_of(failure);
}

// Whether a failure of a later attempt says nothing of what an earlier one did.
bool says_nothing_of_earlier(const Failure& failure) {
  return failure.retryable() || failure.kind() == FailureKind::cancelled;
}

class GuardCalls final : public Interceptor {
 public:
  GuardCalls(resilience::Guards& guards, Random& random) : guards_(guards), random_(random) {}
  std::string_view name() const noexcept override { return "resilience"; }

  Task<Result<Response>> intercept(const RemoteCommand& command, const CallContext& context,
                                   const Request& request, Next next) override {
    resilience::GuardedCall call;
    call.hot_key = context.hot_key;
    call.priority = context.priority;
    call.weight = context.weight;
    call.partition = context.partition;
    call.has_key = !context.idempotency_key.empty() || command.read_only || command.idempotent;
    call.outcome = &outcome_of_call;
    bool unknown = false;  // some attempt may have taken effect
    auto once = [&context, &request, &unknown, next](resilience::AttemptNote& note) {
      return attempt(context, request, next, note.number, unknown);
    };
    Task<Result<Response>> guarded = resilience::guarded(protector(command, context.ns),
                                                         std::move(call), random_, std::move(once));
    Result<Response> response = co_await guarded;
    if (!response && unknown && says_nothing_of_earlier(response.error())) {
      Failure open(FailureKind::unknown_outcome, response.error().code(),
                   "an earlier attempt may have taken effect; the last one: " +
                       std::string(response.error().detail()));
      if (resilience::is_given_up(response.error())) open = resilience::given_up(open, "tried again already");
      co_return fail(std::move(open));
    }
    co_return response;
  }

 private:
  static Task<Result<Response>> attempt(const CallContext& context, const Request& request,
                                        Next next, std::uint32_t number, bool& unknown) {
    CallContext mine = context;
    mine.attempt = number;
    Task<Result<Response>> rest = next(mine, request);
    Result<Response> response = co_await rest;
    unknown = unknown || (!response && response.error().kind() == FailureKind::unknown_outcome);
    co_return response;
  }
  // Guards::find takes a lock and looks through names; commands are few and live as long as we do. Callers may
  // make up apps: what is past the bound is asked for again.
  resilience::Protector& protector(const RemoteCommand& command, const Namespace& ns) {
    {
      const std::shared_lock lock(mutex_);
      if (const auto of = resolved_.find(&command); of != resolved_.end())
        if (const auto found = of->second.find(ns.text()); found != of->second.end()) return *found->second;
    }
    resilience::Protector& found = guards_.find(command.name, ns);
    const std::unique_lock lock(mutex_);
    if (auto& of = resolved_[&command]; of.size() < kAppsResolved) of.emplace(ns.text(), &found);
    return found;
  }
  static constexpr std::size_t kAppsResolved = 100;  // of each command, live and shadow

  resilience::Guards& guards_;
  Random& random_;
  std::shared_mutex mutex_;
  std::map<const RemoteCommand*, std::map<std::string, resilience::Protector*>> resolved_;  // by namespace
};

}  // namespace

std::shared_ptr<Interceptor> guard_calls(resilience::Guards& guards, Random& random) {
  return std::make_shared<GuardCalls>(guards, random);
}

}  // namespace sluice::rpc
