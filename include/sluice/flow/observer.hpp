// Who is told what becomes of exchanges. A failing observer changes nothing but a log line.
#pragma once
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "sluice/base/ids.hpp"
#include "sluice/base/log.hpp"
#include "sluice/base/time.hpp"

namespace sluice::flow {

enum class EventKind : std::uint8_t { begin, committed, aborted, in_doubt, idempotent_hit, recovered, unknown };
std::string_view to_string(EventKind kind) noexcept;

struct FlowEvent {
  EventKind kind = EventKind::begin;
  ExchangeId exchange;
  std::string_view flow;
  std::string_view cause;  ///< of an abort
  WallTime at{};
  std::uint64_t sequence = 0;  ///< per flow, from 1
};

class Observer {
 public:
  virtual ~Observer() = default;
  /// Called on the exchange's lane; may throw, which is logged and ignored.
  virtual void observe(const FlowEvent& event) = 0;
};

/// Keeps the last `bound` events. Thread-safe.
class MemoryObserver final : public Observer {
 public:
  struct Seen {
    EventKind kind;
    ExchangeId exchange;
    std::string flow, cause;
    WallTime at{};
    std::uint64_t sequence = 0;
  };
  explicit MemoryObserver(std::size_t bound = 1024) : bound_(bound == 0 ? 1 : bound) {}
  void observe(const FlowEvent& event) override;
  std::vector<Seen> seen() const;

 private:
  std::size_t bound_;
  mutable std::mutex mutex_;
  std::deque<Seen> seen_;
};

/// One structured line per event; in_doubt and unknown warn, begin is for debugging. `log` must outlive it.
class LogObserver final : public Observer {
 public:
  explicit LogObserver(Logger& log) : log_(log) {}
  void observe(const FlowEvent& event) override;

 private:
  Logger& log_;
};

/// One timed phase of one stage, in the order they ran.
struct StageTiming {
  std::string_view stage;
  std::string_view phase;  ///< prepare, commit, abort
  Duration took{};
};
/// One phase of one stage, for a tracer: a child of the exchange's trace.
struct StageSpan {
  ExchangeId exchange;
  std::string_view trace;  ///< the exchange's W3C traceparent; may be empty
  std::string_view flow, stage, phase;
  std::uint32_t attempt = 1;
  Instant began{};
  Duration took{};
  bool ok = true;
};
struct Profile {
  std::vector<StageTiming> stages;
  Duration total{};
  /// "check/prepare=12µs debit/prepare=3µs total=80µs"
  std::string line() const;
};

}  // namespace sluice::flow
