// Puts the admission gate in front of the registry: an order slot and a permit per command. Shadow traffic
// has a gate of its own, so that no flood of it keeps a live command waiting.
#pragma once
#include <algorithm>

#include "sluice/admission/gate.hpp"
#include "sluice/rpc/registry.hpp"
#include "sluice/server/config.hpp"

namespace sluice::server {

class RegistryGate final : public rpc::Gatekeeper {
 public:
  static constexpr milliseconds kRetryAfter = seconds(1);  // told with every overload

  /// `metrics` may be null; both must outlive it.
  RegistryGate(const GateLimits& limits, Clock& clock, Metrics* metrics)
      : clock_(clock), max_wait_(limits.max_wait), gate_(options(limits, metrics)), shadow_gate_(shadow_options(limits, metrics)) {}
  Component& component() noexcept { return gate_; }
  Component& shadow_component() noexcept { return shadow_gate_; }
  admission::GateStats stats() const { return gate_.stats(); }
  admission::GateStats shadow_stats() const { return shadow_gate_.stats(); }

  void enter(rpc::Invocation& invocation) override {
    auto* ticket = new Ticket;
    invocation.gate_ticket = ticket;
    ticket->invocation = &invocation;
    ticket->gate = invocation.command.ns.shadow() ? &shadow_gate_ : &gate_;
    if (!invocation.ordering_key().empty())
      ticket->ordering_key = invocation.command.ns.text() + '\n' +
                             invocation.ordering_key();
    ticket->lane = invocation.lane;
    ticket->scope = &invocation.scope;
    ticket->deadline = std::min(invocation.command.deadline, clock_.now() + max_wait_);
    ticket->run = [](Job* job) noexcept { answered(*static_cast<Ticket*>(job)); };
    if (ticket->gate->admit(*ticket)) answered(*ticket);
  }
  void pause(rpc::Invocation& invocation) noexcept override {
    if (auto* ticket = static_cast<Ticket*>(invocation.gate_ticket))
      ticket->admission.release_permit();
  }
  void leave(rpc::Invocation& invocation) noexcept override {
    delete static_cast<Ticket*>(std::exchange(invocation.gate_ticket, nullptr));
  }
  bool forget(rpc::Invocation& invocation) noexcept override {
    auto* ticket = static_cast<Ticket*>(invocation.gate_ticket);
    if (ticket == nullptr || !ticket->gate->forget(*ticket)) return false;
    leave(invocation);
    return true;
  }

 private:
  // Lives from enter() to leave(); deleting it gives slot and permit back.
  struct Ticket : admission::PendingAdmission {
    rpc::Invocation* invocation = nullptr;
    admission::Gate* gate = nullptr;
    admission::Admission admission;
  };
  static void answered(Ticket& ticket) noexcept {
    auto& invocation = *ticket.invocation;
    auto admitted = ticket.take();
    if (admitted) {
      ticket.admission = std::move(*admitted);
      return invocation.entered({});
    }
    Failure failure = std::move(admitted).error();
    // A caller that would have waited longer is told to come back, not that its time is up.
    if (failure.kind() == FailureKind::timeout && ticket.deadline < invocation.command.deadline)
      failure = Failure(FailureKind::overloaded, "gate_wait",
                        "nothing was run: no permit became free within gate.max_wait_ms")
                    .with_retry_after(kRetryAfter);
    invocation.gate_ticket = nullptr;
    delete &ticket;
    invocation.entered(fail(std::move(failure)));
  }
  static admission::GateOptions options(const GateLimits& limits, Metrics* metrics) {
    admission::GateOptions out;
    out.name = "commands";
    out.capacity = limits.permits;
    out.max_waiting = limits.max_waiting;
    out.retry_after = kRetryAfter;
    out.metrics = metrics;
    return out;
  }
  static admission::GateOptions shadow_options(const GateLimits& limits, Metrics* metrics) {
    constexpr std::size_t kShare = 4;
    GateLimits share = limits;
    share.permits = limits.shadow_permits != 0 ? limits.shadow_permits : std::max<std::size_t>(1, limits.permits / kShare);
    share.max_waiting = limits.max_waiting / kShare;
    admission::GateOptions out = options(share, metrics);
    out.name = "commands_shadow";
    return out;
  }
  Clock& clock_;
  const milliseconds max_wait_;
  admission::Gate gate_, shadow_gate_;
};

}  // namespace sluice::server
