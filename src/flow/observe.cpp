#include "flow/observe.hpp"

#include <exception>

namespace sluice::flow {
namespace {

std::string what_was_thrown() {
  try {
    throw;
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "something that is no std::exception";
  }
}

}  // namespace

void tell(Flow& flow, const Exchange& exchange, EventKind kind, std::string_view cause,
          WallTime at) noexcept {
  if (flow.options().observers.empty()) return;
  FlowEvent event;
  event.kind = kind;
  event.exchange = exchange.id();
  event.flow = flow.name();
  event.cause = cause;
  event.at = at;
  event.sequence = flow.next_sequence();
  for (const auto& observer : flow.options().observers) {
    try {
      observer->observe(event);
    } catch (...) {
      if (flow.options().log != nullptr)
        flow.options().log->warn("an observer of flow failed and was ignored",
                                 {{"flow", flow.name()}, {"why", what_was_thrown()}},
                                 exchange.correlation);
    }
  }
}

void MemoryObserver::observe(const FlowEvent& event) {
  const std::lock_guard lock(mutex_);
  if (seen_.size() == bound_) seen_.pop_front();
  seen_.push_back({event.kind, event.exchange, std::string(event.flow), std::string(event.cause),
                   event.at, event.sequence});
}

std::vector<MemoryObserver::Seen> MemoryObserver::seen() const {
  const std::lock_guard lock(mutex_);
  return {seen_.begin(), seen_.end()};
}

void LogObserver::observe(const FlowEvent& event) {
  const bool open = event.kind == EventKind::in_doubt || event.kind == EventKind::unknown;
  const LogLevel level = open ? LogLevel::warn : event.kind == EventKind::begin ? LogLevel::debug : LogLevel::info;
  if (!log_.enabled(level)) return;
  log_.log(level, to_string(event.kind),
           {{"flow", event.flow},
            {"exchange", to_string(event.exchange)},
            {"sequence", event.sequence},
            {"cause", event.cause}});
}

}  // namespace sluice::flow
