// The exchanges one Flow object has durable records of and still takes through: recovery leaves them
// alone, and a wake-up finds them. Thread-safe; one short lock per exchange with external effects.
#pragma once
#include <mutex>
#include <unordered_map>

#include "sluice/base/ids.hpp"
#include "sluice/base/lane.hpp"

namespace sluice::flow {

class Runner;

class LiveExchanges {
 public:
  struct Where {
    Lane* lane = nullptr;
    Runner* runner = nullptr;  ///< touch on the lane only
  };
  void add(ExchangeId exchange, Lane& lane, Runner* runner) {
    const std::lock_guard lock(mutex_);
    where_[exchange] = {&lane, runner};
  }
  void remove(ExchangeId exchange) {
    const std::lock_guard lock(mutex_);
    where_.erase(exchange);
  }
  bool contains(ExchangeId exchange) const { return find(exchange).lane != nullptr; }
  Where find(ExchangeId exchange) const {
    const std::lock_guard lock(mutex_);
    const auto found = where_.find(exchange);
    return found == where_.end() ? Where{} : found->second;
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<ExchangeId, Where> where_;
};

}  // namespace sluice::flow
