// The exchanges one Flow object has durable records of and still takes through: recovery leaves them
// alone, and a wake-up finds them. Thread-safe; one short lock per exchange with external effects.
#pragma once
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

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
  /// Announces a wake token; false when another exchange has it.
  bool announce(const std::string& token, Lane& lane, Runner* runner) {
    const std::lock_guard lock(mutex_);
    return sleepers_.try_emplace(token, Where{&lane, runner}).second;
  }
  void forget(const std::string& token) {
    const std::lock_guard lock(mutex_);
    sleepers_.erase(token);
  }
  Where sleeper(const std::string& token) const {
    const std::lock_guard lock(mutex_);
    const auto found = sleepers_.find(token);
    return found == sleepers_.end() ? Where{} : found->second;
  }
  std::vector<Runner*> sleepers() const {
    const std::lock_guard lock(mutex_);
    std::vector<Runner*> all;
    for (const auto& [token, where] : sleepers_) all.push_back(where.runner);
    return all;
  }
  Where find(ExchangeId exchange) const {
    const std::lock_guard lock(mutex_);
    const auto found = where_.find(exchange);
    return found == where_.end() ? Where{} : found->second;
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<ExchangeId, Where> where_;
  std::unordered_map<std::string, Where> sleepers_;  // by wake token
};

}  // namespace sluice::flow
