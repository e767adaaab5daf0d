// The gate: who may run now. In this order: cancelled? shutting down? → the turn of its ordering
// key → a permit → cancelled or shutting down meanwhile? Waiting for one's turn holds no permit.
// The gate runs no handlers, retries nothing and interprets no failures.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "sluice/base/cancel.hpp"
#include "sluice/base/lifecycle.hpp"
#include "sluice/base/metrics.hpp"

namespace sluice::admission {

/// What happens to an arrival when every permit is out.
enum class AtCapacity : std::uint8_t {
  hard_reject,             ///< overloaded at once
  queue,                   ///< it waits; overloaded when the queue is full
  soft_allow,              ///< it is admitted, up to `ceiling`
  soft_allow_with_signal,  ///< the same, and on_pressure is told
};

struct GateOptions {
  std::string name = "gate";   ///< in messages
  std::size_t capacity = 256;  ///< permits; at least 1
  /// Arrivals that wait for a permit, and as many again that wait for their key's turn: a key that many
  /// wait for takes no place from others. Past it: overloaded.
  std::size_t max_waiting = 10'000;
  /// Fewer of those who wait for a turn; past it: overloaded.
  std::size_t max_waiting_for_turn = SIZE_MAX;
  /// Of the `bytes` of those who wait for a permit, and of those who wait for a turn; past it: overloaded.
  std::size_t max_waiting_bytes = 64 << 20;
  AtCapacity policy = AtCapacity::queue;
  std::size_t ceiling = 0;                ///< of the soft policies; 0: twice the capacity
  milliseconds retry_after = seconds(1);  ///< told with overloaded
  /// Called for each admission above capacity, on the admitting thread, possibly under the gate's
  /// lock: it must be short and may not call the gate.
  std::function<void(std::size_t in_use, std::size_t capacity)> on_pressure;
  Metrics* metrics = nullptr;  ///< gauges sluice_admission_*{gate}; may be null, must outlive it
};

struct GateStats {
  std::uint64_t admitted = 0, refused = 0, pressed = 0;
  std::size_t in_use = 0, waiting_for_turn = 0, waiting_for_permit = 0, waiting_bytes = 0,
              keys = 0;
};

class Gate;
struct KeySlot;

/// Its permits and, with an ordering key, the turn of that key. Move-only; given back when destroyed,
/// from any thread. The gate must outlive it.
class Admission {
 public:
  Admission() = default;
  Admission(Admission&& other) noexcept
      : gate_(std::exchange(other.gate_, nullptr)),
        slot_(std::exchange(other.slot_, nullptr)),
        permits_(std::exchange(other.permits_, 0)),
        pressed_(std::exchange(other.pressed_, false)) {}
  Admission& operator=(Admission&& other) noexcept {
    if (this == &other) return *this;
    release();
    gate_ = std::exchange(other.gate_, nullptr);
    slot_ = std::exchange(other.slot_, nullptr);
    permits_ = std::exchange(other.permits_, 0);
    pressed_ = std::exchange(other.pressed_, false);
    return *this;
  }
  ~Admission() { release(); }
  explicit operator bool() const noexcept { return gate_ != nullptr; }
  /// Admitted above capacity by a soft policy: to be told in the reply's metadata.
  bool under_pressure() const noexcept { return pressed_; }
  /// Gives everything back. Idempotent.
  void release() noexcept {
    if (gate_ != nullptr) give_back();
  }
  /// Gives the permit back and keeps the turn: for a paused or backing-off head of a key. Ask for
  /// a permit again through PendingAdmission::held.
  void release_permit() noexcept;

 private:
  friend class Gate;
  void give_back() noexcept;
  Gate* gate_ = nullptr;
  KeySlot* slot_ = nullptr;
  std::size_t permits_ = 0;
  bool pressed_ = false;
};

/// Someone before the gate. The caller sets the upper fields, `lane` and `run`, and keeps it alive
/// until it is answered or forgotten; then it may be used again.
struct PendingAdmission : Job {
  std::string ordering_key;      ///< empty: no order
  /// A turn kept from before: only a permit is asked for, also while the gate drains, because
  /// what was let in is let finish.
  Admission held;
  std::size_t bytes = 0;         ///< what it holds in memory while it waits
  /// How many it takes, all at once and in its turn: what is smaller does not overtake it. One that is larger than
  /// the gate takes all there are.
  std::size_t permits = 1;
  CancelScope* scope = nullptr;  ///< may be null; read on the lane only
  Instant deadline = kNever;     ///< waiting ends then with `timeout`
  /// Admitted and forgotten on this lane. Null: `run` is called by whoever gives way, and the
  /// deadline is not watched.
  Lane* lane = nullptr;
  /// Failures: cancelled (or the scope's reason), timeout, shutting_down, overloaded.
  Result<Admission> answer = Admission();

  /// Takes the answer in `run`, on the lane, after the last check for cancellation.
  Result<Admission> take();

  /// Kept by the gate.
  struct Waiting {
    enum class Place : std::uint8_t { none, turn, permit };
    Gate* gate = nullptr;
    Place place = Place::none;
    KeySlot* slot = nullptr;
    PendingAdmission* next = nullptr;
    PendingAdmission* previous = nullptr;
    Timer timer;
  } waiting;
};

/// Thread-safe. Without an ordering key and with a permit free: no lock and no allocation.
class Gate final : public Component {
 public:
  explicit Gate(GateOptions options = {});
  /// Nobody may be admitted or waiting any more.
  ~Gate() override;
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  /// True: `answer` is there already, and `run` will not be called. False: `run` is called on the
  /// lane when it is. Those with the same ordering key are admitted in the order of these calls.
  bool admit(PendingAdmission& pending);
  /// Takes a waiting one back; true if `run` will not be called any more. False: the answer is on
  /// its way.
  bool forget(PendingAdmission& pending) noexcept;
  GateStats stats() const;

  std::string_view name() const noexcept override { return options_.name; }
  /// New arrivals are refused; those that wait are still admitted in their turn.
  void drain() noexcept override;
  bool drained() noexcept override;
  /// Those that wait fail shutting_down.
  void cancel() noexcept override;

 private:
  friend class Admission;
  struct Impl;
  void give_back(KeySlot* slot, std::size_t permits) noexcept;
  GateOptions options_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::admission
