#include "sluice/base/lifecycle.hpp"

#include <array>

namespace sluice {
namespace {
constexpr std::array<std::string_view, 7> kStateNames = {
    "created", "starting", "running", "draining", "cancelling", "stopped", "failed"};
}

std::string_view lifecycle_state_name(LifecycleState state) noexcept {
  return kStateNames[static_cast<std::size_t>(state) % kStateNames.size()];
}

Lifecycle::Lifecycle(LifecycleOptions options, Logger& logger)
    : options_(options), logger_(logger) {}

void Lifecycle::add(Component& component) {
  SLUICE_ASSERT(state() == LifecycleState::created, "components are added before start()");
  components_.push_back(&component);
}

Status Lifecycle::start() {
  SLUICE_ASSERT(state() == LifecycleState::created, "a lifecycle starts once");
  state_ = LifecycleState::starting;
  for (std::size_t i = 0; i < components_.size(); ++i) {
    busy_ = components_[i];
    Status started = components_[i]->start();
    if (started) continue;
    for (std::size_t k = i; k-- > 0;) {
      components_[k]->drain();
      components_[k]->cancel();
      components_[k]->stop();
    }
    busy_ = nullptr;
    state_ = LifecycleState::failed;
    return fail(started.error().at("starting " + std::string(components_[i]->name())));
  }
  busy_ = nullptr;
  state_ = LifecycleState::running;
  return {};
}

Task<bool> Lifecycle::drained_before(Component& component, Instant deadline) {
  TaskContext& context = co_await current_context();
  Clock& clock = context.lane->clock();
  while (!component.drained()) {
    if (clock.now() >= deadline) co_return false;
    co_await sleep_for(options_.poll);
  }
  co_return true;
}

Task<Status> Lifecycle::shutdown() {
  TaskContext& context = co_await current_context();
  Clock& clock = context.lane->clock();
  LifecycleState expected = LifecycleState::running;
  if (!state_.compare_exchange_strong(expected, LifecycleState::draining)) {
    while (state() == LifecycleState::draining || state() == LifecycleState::cancelling)
      co_await sleep_for(options_.poll);
    if (state() == LifecycleState::created) state_ = LifecycleState::stopped;
    co_return result_;
  }
  // A cancelled caller must not cut the shutdown short, nor make its waits spin.
  CancelScope* const callers_scope = std::exchange(context.scope, nullptr);
  const Instant graceful_until = clock.now() + options_.grace;
  Instant cancelled_until = kNever;
  std::string cut_short;
  for (std::size_t i = components_.size(); i-- > 0;) {
    Component& component = *components_[i];
    busy_ = &component;
    component.drain();
    bool drained = co_await drained_before(component, graceful_until);
    if (!drained) {
      state_ = LifecycleState::cancelling;
      if (cancelled_until == kNever) cancelled_until = clock.now() + options_.cancel_grace;
      if (!cut_short.empty()) cut_short.append(", ");
      cut_short.append(component.name());
      component.cancel();
      drained = co_await drained_before(component, cancelled_until);
      if (!drained) logger_.warn("stopped with work unfinished", {{"component", component.name()}});
    }
    component.stop();
  }
  busy_ = nullptr;
  context.scope = callers_scope;
  if (!cut_short.empty())
    result_ = fail(FailureKind::timeout, "drain_cut_short",
                   "not drained within the grace period, so cancelled: " + cut_short);
  state_ = LifecycleState::stopped;
  co_return result_;
}

std::string_view Lifecycle::busy_with() const noexcept {
  const Component* const component = busy_.load(std::memory_order_acquire);
  return component == nullptr ? std::string_view() : component->name();
}

}  // namespace sluice
