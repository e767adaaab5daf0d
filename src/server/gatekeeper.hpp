// Puts the admission gate in front of the registry: an order slot and a permit per command.
#pragma once
#include "sluice/admission/gate.hpp"
#include "sluice/rpc/registry.hpp"

namespace sluice::server {

class RegistryGate final : public rpc::Gatekeeper {
 public:
  static constexpr std::size_t kPermits = 4096;      // commands that run at once
  static constexpr std::size_t kMaxWaiting = 16'384;  // for a permit or a turn

  RegistryGate() : gate_(options()) {}
  Component& component() noexcept { return gate_; }
  admission::GateStats stats() const { return gate_.stats(); }

  void enter(rpc::Invocation& invocation) override {
    auto* ticket = new Ticket;
    invocation.gate_ticket = ticket;
    ticket->invocation = &invocation;
    if (!invocation.ordering_key().empty())
      ticket->ordering_key = invocation.command.ns.text() + '\n' + invocation.command.name + '\n' +
                             invocation.ordering_key();
    ticket->lane = invocation.lane;
    ticket->scope = &invocation.scope;
    ticket->deadline = invocation.command.deadline;
    ticket->run = [](Job* job) noexcept { answered(*static_cast<Ticket*>(job)); };
    if (gate_.admit(*ticket)) answered(*ticket);
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
    if (ticket == nullptr || !gate_.forget(*ticket)) return false;
    leave(invocation);
    return true;
  }

 private:
  // Lives from enter() to leave(); deleting it gives slot and permit back.
  struct Ticket : admission::PendingAdmission {
    rpc::Invocation* invocation = nullptr;
    admission::Admission admission;
  };
  static void answered(Ticket& ticket) noexcept {
    auto& invocation = *ticket.invocation;
    auto admitted = ticket.take();
    if (admitted) {
      ticket.admission = std::move(*admitted);
      return invocation.entered({});
    }
    invocation.gate_ticket = nullptr;
    delete &ticket;
    invocation.entered(fail(std::move(admitted).error()));
  }
  static admission::GateOptions options() {
    admission::GateOptions out;
    out.name = "commands";
    out.capacity = kPermits;
    out.max_waiting = kMaxWaiting;
    return out;
  }
  admission::Gate gate_;
};

}  // namespace sluice::server
