// Who is told what becomes of exchanges. A failing observer changes nothing but a log line.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sluice/base/ids.hpp"
#include "sluice/base/time.hpp"

namespace sluice::flow {

enum class EventKind : std::uint8_t { begin, committed, aborted, in_doubt, idempotent_hit, recovered };
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

/// One timed phase of one stage, in the order they ran.
struct StageTiming {
  std::string_view stage;
  std::string_view phase;  ///< prepare, commit, abort
  Duration took{};
};
struct Profile {
  std::vector<StageTiming> stages;
  Duration total{};
  /// "check/prepare=12µs debit/prepare=3µs total=80µs"
  std::string line() const;
};

}  // namespace sluice::flow
