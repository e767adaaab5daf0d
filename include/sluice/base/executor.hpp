// Background activities, without saying what runs them. A store's writer, a log's flusher or a
// lane is a step function: in the product each has a thread of its own (base/runtime), in the
// simulator all of them are interleaved on one thread under a seed (sim). Rooms take an Executor
// by reference and never start threads themselves.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "sluice/base/lane.hpp"
#include "sluice/base/time.hpp"

namespace sluice {

/// A running background activity. Destroying it stops it: after that `step` neither runs nor will
/// run again. wake() is thread-safe and cheap when the activity is not asleep; a wake() during a
/// step is remembered.
class Worker : public Waker {};

class Executor {
 public:
  /// Does what is ready, then says when it wants to run again: kNever waits for wake(), a time
  /// in the past means at once.
  using Step = std::move_only_function<Instant() noexcept>;

  virtual ~Executor() = default;
  /// `name` is what debuggers and the simulator's history show (15 characters at most are kept by
  /// the operating system). The first step runs at once, on the activity's own thread.
  virtual std::unique_ptr<Worker> start(std::string name, Step step) = 0;
};

}  // namespace sluice
