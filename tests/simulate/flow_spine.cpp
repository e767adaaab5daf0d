// The product's wiring below the doors: keys, flow, recovery, store.
#include <charconv>

#include "simulate/spine.hpp"
#include "sluice/flow/flow.hpp"
#include "sluice/flow/recovery.hpp"
#include "sluice/idempotency/keys.hpp"

namespace sluice::simulate {
namespace {

using flow::Effect;
using flow::Exchange;
using flow::ExchangePtr;
using flow::Vote;

constexpr Duration kRecoveryPause = milliseconds(300);

Bytes encode(const Operation& operation) {
  Bytes out;
  ByteWriter writer(out);
  writer.bytes(operation.key);
  writer.varint(operation.from);
  writer.varint(operation.to);
  writer.signed_varint(operation.amount);
  writer.u8(operation.declined ? 1 : 0);
  return out;
}

Result<Operation> decode(ByteView bytes) {
  ByteReader reader(bytes);
  Operation operation;
  operation.key = reader.bytes();
  operation.from = static_cast<std::uint32_t>(reader.varint());
  operation.to = static_cast<std::uint32_t>(reader.varint());
  operation.amount = reader.signed_varint();
  operation.declined = reader.u8() != 0;
  if (!reader.at_end()) return fail(FailureKind::corrupt, "operation", "does not decode");
  return operation;
}

// The key travels to the second phase, also after a crash.
Bytes encode_text(const std::string& text) { return text; }
Result<std::string> decode_text(ByteView bytes) { return std::string(bytes); }
constexpr flow::BagKey<std::string> kKey{"key", &encode_text, &decode_text};

// The exchange's id in each reply tells two runs of one key apart.
Reply refusal(const Exchange& exchange, std::string_view code) {
  return Reply::from(Failure(FailureKind::rejected, code, to_string(exchange.id())));
}

class PartnerStage final : public flow::Stage {
 public:
  explicit PartnerStage(Partner& partner, std::string_view name = "partner") : partner_(partner), name_(name) {}
  std::string_view name() const noexcept override { return name_; }
  Effect effect() const noexcept override { return Effect::external; }
  bool asynchronous() const noexcept override { return true; }
  bool has_commit() const noexcept override { return true; }
  bool has_abort() const noexcept override { return true; }

  Task<Result<Vote>> prepare_task(Exchange& exchange) override {
    std::string* const key = exchange.get(kKey);
    Status held = co_await partner_.call(Partner::Verb::hold, exchange.token(), *key);
    if (!held && held.error().kind() == FailureKind::rejected) {
      exchange.respond(refusal(exchange, held.error().code()));
      exchange.abort("partner declined");
      co_return Vote::continue_();
    }
    if (!held) co_return fail(std::move(held).error());
    co_return Vote::continue_();
  }
  Task<Status> commit_task(Exchange& exchange) override {
    std::string* const key = exchange.get(kKey);
    std::string name = key == nullptr ? "?" : *key;
    Status done = co_await partner_.call(Partner::Verb::confirm, exchange.token(), std::move(name));
    co_return done;
  }
  Task<Status> abort_task(Exchange& exchange, bool) override {
    std::string* const key = exchange.get(kKey);
    std::string name = key == nullptr ? "?" : *key;
    Status done = co_await partner_.call(Partner::Verb::release, exchange.token(), std::move(name));
    co_return done;
  }

 private:
  Partner& partner_;
  std::string_view name_;
};

Result<Vote> check(Exchange& exchange) {
  const auto operation = decode(exchange.request());
  if (!operation) return fail(operation.error());
  exchange.set(kKey, operation->key);
  return Vote::continue_();
}

Result<Vote> debit(Exchange& exchange) {
  SLUICE_ASSIGN(const Operation operation, decode(exchange.request()));
  exchange.draft().take(account_row(operation.from), operation.amount, "insufficient",
                        refusal(exchange, "insufficient"));
  return Vote::continue_();
}

Result<Vote> credit(Exchange& exchange) {
  SLUICE_ASSIGN(const Operation operation, decode(exchange.request()));
  if (operation.declined) {
    exchange.respond(refusal(exchange, "declined"));
    exchange.abort("declined");
    return Vote::continue_();
  }
  exchange.draft().add(account_row(operation.to), operation.amount);
  exchange.draft().add(effect_row(operation.key), 1);
  exchange.respond(Reply::ok("moved by " + to_string(exchange.id())));
  return Vote::continue_();
}

// Waits for a claim on the task's lane. When the caller goes the claim is taken back, unless its
// answer is on the way already: then that is taken, or a claim would be lost for ever.
class ClaimAwaiter {
 public:
  ClaimAwaiter(idempotency::Keys& keys, Bytes scope, Digest fingerprint, ExchangeId exchange)
      : keys_(keys) {
    pending_.owner = this;
    pending_.scope = std::move(scope);
    pending_.fingerprint = fingerprint;
    pending_.exchange = exchange;
    pending_.policy.max_wait = seconds(2);
  }
  ClaimAwaiter(const ClaimAwaiter&) = delete;
  ClaimAwaiter& operator=(const ClaimAwaiter&) = delete;
  ~ClaimAwaiter() {
    if (handle_) static_cast<void>(keys_.forget(pending_));
  }
  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> self) {
    TaskContext& context = *self.promise().context;
    pending_.lane = context.lane;
    pending_.deadline = context.deadline;
    pending_.run = [](Job* job) noexcept {
      static_cast<Pending*>(static_cast<idempotency::PendingClaim*>(job))->owner->resume();
    };
    if (keys_.claim(pending_)) return false;
    handle_ = self;
    if (context.scope != nullptr)
      gone_.link(
          *context.scope, [](void* a) noexcept { static_cast<ClaimAwaiter*>(a)->gone(); }, this);
    return true;
  }
  Result<idempotency::Claimed> await_resume() { return std::move(pending_.answer); }

 private:
  struct Pending : idempotency::PendingClaim {
    ClaimAwaiter* owner = nullptr;
  };
  void resume() noexcept {
    gone_.unlink();
    std::exchange(handle_, {}).resume();
  }
  void gone() noexcept {
    if (!keys_.forget(pending_)) return;
    pending_.answer = fail(FailureKind::cancelled, "claim", "gave up waiting for the key");
    resume();
  }
  idempotency::Keys& keys_;
  Pending pending_;
  std::coroutine_handle<> handle_;
  CancelListener gone_;
};

class FlowSpine final : public Spine {
 public:
  FlowSpine(World& world, Lane& lane, std::unique_ptr<store::Store> store)
      : world_(world), lane_(lane), ids_(world.clock, 1), store_(std::move(store)) {
    ids_.advance_past(store_->largest_id());
    keys_ = std::make_unique<idempotency::Keys>(
        world.clock, store_.get(),
        idempotency::KeysOptions{
            .max_entries = 8, .max_bytes = 4096, .max_claims = 1000, .shards = 2});
    plain_ = make_flow("transfer", false);
    external_ = make_flow("transfer_external", true);
    paused_ = make_flow("transfer_paused", true, true);
    doubly_ = make_flow("transfer_doubly", true, false, true);
    for (auto* flow : {plain_.get(), external_.get(), paused_.get(), doubly_.get()}) flows_.add(*flow);
    recovery_ = std::make_unique<flow::Recovery>(*store_, flows_, lane_);
  }

  store::Store& store() override { return *store_; }

  Task<Status> recover() override {
    Status opened = co_await open_accounts(*store_);
    if (!opened) co_return opened;
    sweep();
    co_return Status{};
  }

  bool settled() override { return !sweeping_ && open_exchanges() == 0; }

  // As after kill -9 nothing is finished or tidied. Exchanges own themselves and wait for a lane
  // that never runs again, so they are left where they are, with what they point to. The store goes with this: a
  // claim that a request still held asks it for the next in line.
  void crash() noexcept override {
    *alive_ = false;
    store_->close();
    world_.partner.hang_up();
    static_cast<void>(recovery_.release());
    static_cast<void>(keys_.release());
    static_cast<void>(plain_.release());
    static_cast<void>(external_.release());
    static_cast<void>(paused_.release());
    static_cast<void>(doubly_.release());
  }

  Task<Answer> handle(Operation operation) override {
    const Bytes request = encode(operation);
    const Namespace ns(kApp);
    ExchangePtr exchange = std::make_shared<Exchange>(ids_.exchange(), ns, request);
    const Bytes scope = idempotency::make_scope(ns, "client", "transfer", 1, operation.key);
    ClaimAwaiter claiming(*keys_, scope, sha256(request), exchange->id());
    Result<idempotency::Claimed> claimed = co_await claiming;
    Answer answer;
    if (!claimed) {
      answer.failure = claimed.error().kind();
      answer.kind = Answer::Kind::released;
      co_return answer;
    }
    if (auto* replay = std::get_if<idempotency::Replay>(&*claimed))
      co_return final_answer(replay->cached->reply, true);
    auto* run = std::get_if<idempotency::Run>(&*claimed);
    if (run == nullptr) {
      answer.failure = FailureKind::in_progress;
      co_return answer;
    }
    TaskContext& context = co_await current_context();
    CancelListener gone;
    if (context.scope != nullptr)
      gone.link(
          *context.scope, [](void* e) noexcept { static_cast<Exchange*>(e)->scope().cancel(); },
          exchange.get());
    flow::Flow& flow = !operation.external           ? *plain_
                       : operation.holds == 2      ? *doubly_
                       : operation.number % 2 == 0 ? *paused_
                                                   : *external_;
    Task<flow::Outcome> running = flow.run(exchange, std::move(run->claim));
    flow::Outcome outcome = co_await running;
    co_return answer_of(outcome);
  }

 private:
  std::unique_ptr<flow::Flow> make_flow(std::string name, bool external, bool pauses = false, bool doubly = false) {
    flow::FlowOptions options;
    options.store = store_.get();
    options.keys = keys_.get();
    options.ids = &ids_;
    options.second_phase.attempts = 4;
    auto made = std::make_unique<flow::Flow>(std::move(name), std::move(options));
    std::vector<flow::StagePtr> stages{flow::func("check", check, Effect::none),
                                       flow::func("debit", debit)};
    if (pauses) {
      flow::Awaited awaited;
      awaited.timeout = world_.database && world_.random.one_in(3) ? milliseconds(150) : seconds(20);
      awaited.ask = [this](Exchange& exchange) -> Status {
        world_.asked.insert(exchange.token());
        if (world_.database && world_.random.one_in(2)) answer_soon(exchange.token());
        return {};
      };
      awaited.answer = [this](Exchange& exchange, ByteView) -> Result<Vote> {
        world_.asked.erase(exchange.token());
        return Vote::continue_();
      };
      stages.push_back(flow::await_answer("host", Effect::store, std::move(awaited)));
    }
    if (external) stages.push_back(std::make_shared<PartnerStage>(world_.partner));
    if (doubly) stages.push_back(std::make_shared<PartnerStage>(world_.partner, "second partner"));
    stages.push_back(flow::func("credit", credit));
    made->group("main", std::move(stages));
    return made;
  }

  static Answer final_answer(Bytes reply, bool replayed) {
    Answer answer;
    const auto decoded = Reply::decode(reply);
    SLUICE_ASSERT(decoded.has_value(), "a stored reply does not decode");
    answer.kind =
        decoded->kind == FailureKind::none ? Answer::Kind::committed : Answer::Kind::declined;
    answer.reply = std::move(reply);
    answer.replayed = replayed;
    return answer;
  }

  static Answer answer_of(const flow::Outcome& outcome) {
    Answer answer;
    answer.failure = outcome.cause ? outcome.cause->kind() : FailureKind::none;
    switch (outcome.kind) {
      case flow::OutcomeKind::committed:
      case flow::OutcomeKind::aborted:
        if (!outcome.reply_bytes.empty())
          return final_answer(outcome.reply_bytes, outcome.replayed);
        SLUICE_ASSERT(outcome.kind == flow::OutcomeKind::aborted,
                      "committed under a key, without the bytes it stored");
        answer.kind = Answer::Kind::released;
        return answer;
      case flow::OutcomeKind::in_doubt:
      case flow::OutcomeKind::unknown:
      case flow::OutcomeKind::pending:
        return answer;
    }
    return answer;
  }

  // What the node does in the background: sweep, pause, sweep again.
  void sweep() {
    sweeping_ = true;
    wake_some();
    recovery_->start([this](const Result<flow::RecoveryProgress>&) {
      sweeping_ = false;
      again_.arm(
          lane_, world_.clock.now() + kRecoveryPause,
          [](void* self) noexcept { static_cast<FlowSpine*>(self)->sweep(); }, this);
    });
  }

  // The host answers about half of those that wait, each time.
  void wake_some() {
    for (const auto& token : world_.asked) {
      const auto waiting = flows_.expecting(token);
      if (waiting.empty() || !world_.random.one_in(2)) continue;
      wake(waiting[0], token);
    }
  }

  void wake(const flow::Flows::Expecting& waiting, const std::string& token) {
    struct Waking : flow::PendingWake {};
    auto* waking = new Waking;
    waking->ns = waiting.ns;
    waking->token = token;
    waking->payload = "yes";
    waking->lane = &lane_;
    waking->run = [](Job* job) noexcept { delete static_cast<Waking*>(static_cast<flow::PendingWake*>(job)); };
    waiting.flow->wake(*waking);
  }

  // A quick host: perhaps before the pause is on disk.
  void answer_soon(const std::string& token) {
    const auto pause = microseconds(static_cast<std::int64_t>(world_.random.below(3000)));
    world_.scheduler.after(pause, [this, alive = alive_, token] {
      if (!*alive) return;
      lane_.post([this, token] {
        if (const auto waiting = flows_.expecting(token); !waiting.empty()) wake(waiting[0], token);
      });
    });
  }

  std::size_t open_exchanges() {
    store::PendingQuery query;
    query.query = store::ListOpen{};
    query.lane = &lane_;
    query.run = [](Job*) noexcept {};
    store::Store& from = world_.database ? *world_.database : *store_;
    SLUICE_ASSERT(from.ask(query), "it answers at once");
    if (!query.answer) return 1;
    return std::get<store::ListOpen::Answer>(*query.answer).size();
  }

  World& world_;
  Lane& lane_;
  IdSource ids_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<idempotency::Keys> keys_;
  std::unique_ptr<flow::Flow> plain_;
  std::unique_ptr<flow::Flow> external_;
  std::unique_ptr<flow::Flow> paused_;
  std::unique_ptr<flow::Flow> doubly_;
  flow::Flows flows_;
  std::unique_ptr<flow::Recovery> recovery_;
  Timer again_;
  bool sweeping_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace

Result<std::unique_ptr<Spine>> make_flow_spine(World& world, Lane& lane, Backing backing) {
  SLUICE_ASSIGN(std::unique_ptr<store::Store> opened, open_store(world, backing));
  return std::make_unique<FlowSpine>(world, lane, std::move(opened));
}

}  // namespace sluice::simulate
