// What the gate knows. Permits without a queue are counted without the lock; everything that
// waits, and every turn, is under it.
#pragma once
#include <algorithm>
#include <atomic>
#include <mutex>

#include "admission/pending_queue.hpp"
#include "admission/permits.hpp"
#include "admission/turn_table.hpp"

namespace sluice::admission {

/// Those who have their answer; run once the lock is released.
class Answered {
 public:
  void add(PendingAdmission& pending) noexcept { queue_.push(pending); }
  void run() noexcept {
    while (PendingAdmission* pending = queue_.pop()) {
      if (pending->lane != nullptr)
        pending->lane->post(*pending);
      else
        pending->run(pending);
    }
  }

 private:
  PendingQueue queue_;
};

struct Gate::Impl {
  enum class State : std::uint8_t { running, draining, cancelled };
  enum class Verdict : std::uint8_t { taken, pressed, queue, refused };
  using Place = PendingAdmission::Waiting::Place;

  explicit Impl(Gate& owner);

  /// Nothing: it may go on.
  std::optional<Failure> stopped(const PendingAdmission& pending, State worst_allowed) const;
  /// How many it takes of what there are.
  std::size_t wanted(const PendingAdmission& pending) const noexcept {
    return std::clamp<std::size_t>(pending.permits, 1, options.capacity);
  }
  Verdict take_permits(const PendingAdmission& pending);
  Admission made(const PendingAdmission& pending, KeySlot* slot, bool pressed) noexcept;
  void admit_now(PendingAdmission& pending, KeySlot* slot, bool pressed);

  // Under the lock.
  /// `pending` has its turn (or needs none). True: answered.
  bool ask_permit(PendingAdmission& pending, KeySlot* slot);
  /// Gives the turn to the next of its key, or ends it.
  void pass_on(KeySlot* slot, Answered& answered);
  /// Hands free permits to those who queue.
  void grant(Answered& answered);
  /// Takes a waiting one out; its turn, if it had one, goes on.
  void remove(PendingAdmission& pending, Answered& answered);
  void refuse(PendingAdmission& pending, const Failure& failure);
  /// Why one more may not wait there; null: it may. Those who wait for a turn take no place from those
  /// who wait for a permit, so one key cannot have the arrivals of others refused.
  const Failure* no_place(const PendingAdmission& pending, Place place) const noexcept;
  /// Counts the bytes of those who wait; between two places nothing changes.
  void move_to(PendingAdmission& pending, Place place, KeySlot* slot) noexcept;
  static void on_deadline(void* owner) noexcept;

  Gate& gate;
  const GateOptions& options;
  const std::size_t ceiling;
  // Made once: refusing must not allocate. Each names the bound that was met.
  const Failure no_permit;
  const Failure no_place_for_permit;
  const Failure no_place_for_turn;
  const Failure no_bytes;
  const Failure draining;
  const Failure late;

  Permits permits;
  std::atomic<State> state{State::running};
  std::atomic<std::uint64_t> admitted{0};
  std::atomic<std::uint64_t> refused{0};
  std::atomic<std::uint64_t> pressed{0};

  mutable std::mutex mutex;
  TurnTable turns;
  PendingQueue for_permit;
  std::size_t for_turn = 0;
  std::size_t turn_bytes = 0, permit_bytes = 0;  // of those who wait there
  std::unique_ptr<Metrics::Hook> hook;  // last: it reads all of the above
};

}  // namespace sluice::admission
