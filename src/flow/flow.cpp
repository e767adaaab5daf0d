#include "sluice/flow/flow.hpp"

#include <algorithm>

#include "flow/flow_metrics.hpp"
#include "flow/keyed_run.hpp"
#include "flow/live.hpp"
#include "flow/runner.hpp"

namespace sluice::flow {

std::string_view to_string(OutcomeKind kind) noexcept {
  switch (kind) {
    case OutcomeKind::committed: return "committed";
    case OutcomeKind::aborted: return "aborted";
    case OutcomeKind::in_doubt: return "in_doubt";
    case OutcomeKind::pending: return "pending";
    case OutcomeKind::unknown: return "unknown";
  }
  return "?";
}

std::string_view to_string(EventKind kind) noexcept {
  switch (kind) {
    case EventKind::begin: return "begin";
    case EventKind::committed: return "committed";
    case EventKind::aborted: return "aborted";
    case EventKind::in_doubt: return "in_doubt";
    case EventKind::idempotent_hit: return "idempotent_hit";
    case EventKind::recovered: return "recovered";
    case EventKind::unknown: return "unknown";
  }
  return "?";
}

std::string Profile::line() const {
  const auto micros = [](Duration d) { return std::to_string(d.count() / 1000) + "µs"; };
  std::string line;
  for (const auto& t : stages)
    line.append(t.stage).append("/").append(t.phase).append("=").append(micros(t.took)).append(" ");
  return line + "total=" + micros(total);
}

Flow::Flow(std::string name, FlowOptions options)
    : name_(std::move(name)), options_(std::move(options)), graph_(std::make_unique<Graph>()),
      live_(std::make_shared<LiveExchanges>()) {
  SLUICE_ASSERT(options_.max_stages > 0 && options_.max_stages <= 1'000'000, "FlowOptions::max_stages must be 1 to 1,000,000");
}

// What sleeps stays on disk; the next process wakes it.
Flow::~Flow() {
  for (Runner* runner : live_->sleepers()) Runner::drop_sleeping(runner);
}

Flow& Flow::group(std::string_view name, std::vector<StagePtr> stages) {
  SLUICE_ASSERT(!sealed_.load(), "a flow's groups cannot change after its first run");
  int at = graph_->find_group(name);
  if (at < 0) {
    at = static_cast<int>(graph_->groups.size());
    graph_->groups.push_back({std::string(name), {}});
  }
  auto& group = graph_->groups[static_cast<std::size_t>(at)];
  for (auto& stage : stages) group.stages.push_back(graph_->add(std::move(stage)));
  return *this;
}

std::uint64_t Flow::graph_hash() const { return graph_->hash(); }

Result<std::uint16_t> Flow::entry() {
  if (graph_->groups.empty())
    return fail(FailureKind::invalid_argument, "no_entry", "flow '" + name_ + "' has no group");
  if (options_.entry.empty()) return std::uint16_t{0};
  const int at = graph_->find_group(options_.entry);
  if (at < 0)
    return fail(FailureKind::invalid_argument, "unknown_group",
                "flow '" + name_ + "': its entry names group '" + options_.entry + "', which it does not have");
  return static_cast<std::uint16_t>(at);
}

bool Flow::running(ExchangeId exchange) const { return live_->contains(exchange); }
bool Flow::running_of(std::uint16_t node) const { return live_->has_of(node); }
std::uint64_t Flow::left_open() const noexcept { return live_->count_left_open(); }

// The first run fixes the graph; runs on other lanes wait for it.
void Flow::seal() {
  if (sealed_.load(std::memory_order_acquire)) return;
  std::call_once(sealing_, [this] {
    if (auto at = entry())
      graph_->entry = *at;
    else
      no_entry_ = at.error();
    hash_ = graph_->hash();
    if (options_.metrics != nullptr)
      metrics_ = std::make_unique<FlowMetrics>(*options_.metrics, name_, *graph_);
    sealed_.store(true, std::memory_order_release);
  });
}

namespace {

// The exchange's key by the application's function, whose throw is this request's failure.
Result<std::optional<std::string>> key_of(const FlowOptions& options, const Exchange& exchange) {
  if (options.keys == nullptr || !options.key) return std::optional<std::string>();
  try {
    return options.key(exchange);
  } catch (const std::exception& error) {
    return fail(FailureKind::internal, "exception", std::string("the key function threw: ") + error.what());
  } catch (...) {
    return fail(FailureKind::internal, "exception", "the key function threw something that is no std::exception");
  }
}

}  // namespace

void Flow::run(ExchangePtr exchange, RunOptions options, Done done, void* owner) {
  seal();
  std::optional<Failure> refused = no_entry_;
  std::optional<std::string> key;
  if (!refused && !options.claim) {
    if (auto said = key_of(options_, *exchange))
      key = *std::move(said);
    else
      refused = said.error();
  }
  if (refused) {
    Outcome outcome;
    outcome.kind = OutcomeKind::aborted;
    outcome.exchange = exchange->id();
    outcome.cause = std::move(refused);
    if (options.claim) options.claim.release();
    if (done != nullptr) done(owner, std::move(outcome));
    return;
  }
  if (key) return KeyedRun::start(*this, *std::move(key), std::move(exchange), std::move(options), done, owner);
  begin(std::move(exchange), std::move(options), done, owner);
}

void Flow::begin(ExchangePtr exchange, RunOptions options, Done done, void* owner) {
  (new Runner(*this, std::move(exchange), std::move(options), done, owner))->begin();
}

namespace {

// Awaits a run on the awaiting task's lane.
class RunAwaiter {
 public:
  RunAwaiter(Flow& flow, ExchangePtr exchange, idempotency::Claim claim)
      : flow_(flow), exchange_(std::move(exchange)), claim_(std::move(claim)) {}
  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> self) {
    handle_ = self;
    TaskContext& context = *self.promise().context;
    RunOptions options;
    options.lane = context.lane;
    options.deadline = context.deadline;
    options.claim = std::move(claim_);
    starting_ = true;
    flow_.run(std::move(exchange_), std::move(options),
              [](void* owner, Outcome outcome) noexcept {
                auto* awaiter = static_cast<RunAwaiter*>(owner);
                awaiter->outcome_ = std::move(outcome);
                if (!awaiter->starting_) awaiter->handle_.resume();
              },
              this);
    starting_ = false;
    return !outcome_.has_value();
  }
  Outcome await_resume() { return *std::move(outcome_); }

 private:
  Flow& flow_;
  ExchangePtr exchange_;
  idempotency::Claim claim_;
  std::coroutine_handle<> handle_;
  std::optional<Outcome> outcome_;
  bool starting_ = false;
};

}  // namespace

Task<Outcome> Flow::run(ExchangePtr exchange, idempotency::Claim claim) {
  RunAwaiter awaiting(*this, std::move(exchange), std::move(claim));
  Outcome outcome = co_await awaiting;
  co_return outcome;
}

}  // namespace sluice::flow
