// Starting and stopping in order. A Component is anything that takes work: a gate, an engine, a
// dispatcher, a server, a store. The Lifecycle starts them in order and, in reverse, drains each
// within one grace period, cancels what is left, and stops it.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sluice/base/failure.hpp"
#include "sluice/base/log.hpp"
#include "sluice/base/task.hpp"

namespace sluice {

/// drain, drained, cancel and stop are idempotent, thread-safe and return quickly; they are called
/// in this order, but any of the first three may be left out.
class Component {
 public:
  virtual ~Component() = default;
  virtual std::string_view name() const noexcept = 0;
  /// Ready for work on return. A failed start leaves nothing to stop.
  virtual Status start() { return {}; }
  /// From now on new work is refused (kind shutting_down); what was taken goes on.
  virtual void drain() noexcept {}
  /// Nothing taken is unfinished.
  virtual bool drained() noexcept { return true; }
  /// The grace is over: cancel what runs, fail what is queued with shutting_down.
  virtual void cancel() noexcept {}
  /// Lets go of threads, sockets and files.
  virtual void stop() noexcept {}
};

enum class LifecycleState : std::uint8_t {
  created,
  starting,
  running,
  draining,
  cancelling,
  stopped,
  failed,  ///< a start failed; what had started is stopped
};
std::string_view lifecycle_state_name(LifecycleState state) noexcept;

struct LifecycleOptions {
  Duration grace = seconds(10);        ///< for draining, all components together
  Duration cancel_grace = seconds(2);  ///< for cancelled work to end, all together
  Duration poll = milliseconds(2);     ///< how often drained() is asked
};

class Lifecycle {
 public:
  explicit Lifecycle(LifecycleOptions options = {}, Logger& logger = null_logger());

  /// In starting order; before start(). The component must outlive this.
  void add(Component& component);

  /// Starts all, in order. On a failure stops those that had started, in reverse, and returns the
  /// failure with the component's name. Once.
  Status start();

  /// Drains, cancels and stops, in reverse. On a lane; takes at most grace + cancel_grace of its
  /// time plus what the stops take. Idempotent: further calls wait for the first. Fails `timeout`
  /// when something had to be cancelled, naming the components.
  Task<Status> shutdown();

  LifecycleState state() const noexcept { return state_.load(std::memory_order_acquire); }
  bool accepting() const noexcept { return state() == LifecycleState::running; }
  /// The component that is being started or drained; empty otherwise. Thread-safe.
  std::string_view busy_with() const noexcept;

 private:
  Task<bool> drained_before(Component& component, Instant deadline);
  LifecycleOptions options_;
  Logger& logger_;
  std::vector<Component*> components_;
  std::atomic<LifecycleState> state_{LifecycleState::created};
  std::atomic<Component*> busy_{nullptr};
  Status result_;
};

}  // namespace sluice
