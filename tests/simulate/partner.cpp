#include "simulate/partner.hpp"

namespace sluice::simulate {
namespace {
constexpr Duration kCallTimeout = milliseconds(200);
constexpr std::uint64_t kDeclineOneIn = 9;
}  // namespace

// One call on the wire. The shared state outlives the caller: answers to a caller that was
// destroyed, by cancellation or a crash, fall on deaf ears.
class PartnerCall final : public Suspension {
 public:
  PartnerCall(Partner& partner, Partner::Verb verb, std::string token, std::string key)
      : partner_(partner),
        verb_(verb),
        token_(std::move(token)),
        key_(std::move(key)),
        shared_(std::make_shared<Shared>()) {
    shared_->caller = this;
    partner_.waiting_.insert(this);
  }
  ~PartnerCall() override { hang_up(); }
  void hang_up() noexcept {
    shared_->caller = nullptr;
    partner_.waiting_.erase(this);
  }

  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> self) {
    if (!suspend(self)) return false;
    send();
    return true;
  }
  Status await_resume() {
    if (cancel_kind() != FailureKind::none)
      return fail(cancel_kind(), "partner", "gave up waiting for the partner");
    return std::move(answer_);
  }

 private:
  struct Shared {
    PartnerCall* caller = nullptr;
    Status answer;
  };

  void send() {
    Lane& lane = *context().lane;
    timeout_.arm(lane, lane.clock().now() + kCallTimeout, &PartnerCall::timed_out, this);
    if (partner_.faults_.fires("partner.request_lost")) return;
    const int copies = partner_.faults_.fires("partner.request_doubled") ? 2 : 1;
    for (int i = 0; i < copies; ++i)
      partner_.scheduler_.after(partner_.latency(), [shared = shared_, &partner = partner_,
                                                     verb = verb_, token = token_, key = key_] {
        Status answer = partner.apply(verb, token, key);
        if (partner.faults_.fires("partner.answer_lost")) return;
        partner.scheduler_.after(partner.latency(), [shared, answer = std::move(answer)] {
          if (shared->caller == nullptr) return;
          shared->answer = answer;
          shared->caller->context().lane->post([shared] {
            if (shared->caller != nullptr) shared->caller->answered(std::move(shared->answer));
          });
        });
      });
  }
  void answered(Status answer) noexcept {
    hang_up();
    timeout_.cancel();
    answer_ = std::move(answer);
    finish();
  }
  static void timed_out(void* owner) noexcept {
    auto* self = static_cast<PartnerCall*>(owner);
    self->hang_up();
    self->answer_ =
        fail(FailureKind::unknown_outcome, "partner_timeout", "no answer from the partner");
    self->finish();
  }
  void on_cancel() noexcept override {
    hang_up();
    timeout_.cancel();
  }

  Partner& partner_;
  Partner::Verb verb_;
  std::string token_;
  std::string key_;
  std::shared_ptr<Shared> shared_;
  Timer timeout_;
  Status answer_;
};

Task<Status> Partner::call(Verb verb, std::string token, std::string key) {
  ++calls_;
  if (faults_.fires("partner.down"))
    co_return fail(FailureKind::unavailable, "partner_down", "the partner refuses connections");
  PartnerCall call(*this, verb, std::move(token), std::move(key));
  Status answer = co_await call;
  co_return answer;
}

void Partner::hang_up() noexcept {
  while (!waiting_.empty()) (*waiting_.begin())->hang_up();
}

Duration Partner::latency() {
  if (faults_.fires("partner.slow")) return milliseconds(random_.below(400));
  return microseconds(100 + random_.below(5000));
}

Status Partner::apply(Verb verb, const std::string& token, const std::string& key) {
  history_.note("partner", hash64(token), static_cast<std::uint64_t>(verb));
  const auto found = entries_.find(token);
  switch (verb) {
    case Verb::hold:
      if (found == entries_.end()) {
        if (hash64(key) % kDeclineOneIn == 0)
          return fail(FailureKind::rejected, "partner_declined", "the partner declines this key");
        entries_[token] = {key, State::held};
        return {};
      }
      if (found->second.state == State::released)
        return fail(FailureKind::rejected, "already_released", "released before it was held");
      return {};
    case Verb::confirm:
      if (found == entries_.end())
        violations_.push_back("confirm of " + token + ", which was never held");
      else if (found->second.state == State::released)
        violations_.push_back("confirm of " + token + " after its release");
      else
        found->second.state = State::confirmed;
      return {};
    case Verb::release:
      if (found == entries_.end())
        entries_[token] = {key, State::released};
      else if (found->second.state == State::confirmed)
        violations_.push_back("release of " + token + " after its confirmation");
      else
        found->second.state = State::released;
      return {};
  }
  return {};
}

}  // namespace sluice::simulate
