// The exchanges one Flow object has durable records of and still takes through: recovery leaves them
// alone, and a wake-up finds them. Thread-safe; one short lock per exchange with external effects.
#pragma once
#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "sluice/base/ids.hpp"
#include "sluice/base/lane.hpp"
#include "sluice/base/namespace.hpp"

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
  /// Whether any that a node of that number began is here.
  bool has_of(std::uint16_t node) const {
    const std::lock_guard lock(mutex_);
    return std::ranges::any_of(where_, [&](const auto& one) { return IdSource::node_of(one.first.value) == node; });
  }
  bool contains(ExchangeId exchange) const { return find(exchange).lane != nullptr; }
  /// One is over here but may be open in the store (its end was not written, or nobody can say): a sweep must come
  /// soon, since other nodes tell its key "in progress" until then.
  void left_open() noexcept { left_open_.fetch_add(1, std::memory_order_relaxed); }
  /// How many, ever.
  std::uint64_t count_left_open() const noexcept { return left_open_.load(std::memory_order_relaxed); }
  /// Announces a wake token; false when another exchange of this namespace has it.
  bool announce(const std::string& token, const Namespace& ns, Lane& lane, Runner* runner) {
    const std::lock_guard lock(mutex_);
    return sleepers_.try_emplace({token, ns.text()}, Where{&lane, runner}).second;
  }
  void forget(const std::string& token, const Namespace& ns) {
    const std::lock_guard lock(mutex_);
    sleepers_.erase({token, ns.text()});
  }
  Where sleeper(const std::string& token, const Namespace& ns) const {
    const std::lock_guard lock(mutex_);
    const auto found = sleepers_.find({token, ns.text()});
    return found == sleepers_.end() ? Where{} : found->second;
  }
  /// The namespaces (as text) in which an exchange sleeps under this token.
  std::vector<std::string> namespaces_of(const std::string& token) const {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> all;
    for (auto at = sleepers_.lower_bound({token, {}}); at != sleepers_.end() && at->first.first == token; ++at)
      all.push_back(at->first.second);
    return all;
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
  std::atomic<std::uint64_t> left_open_{0};
  mutable std::mutex mutex_;
  std::unordered_map<ExchangeId, Where> where_;
  std::map<std::pair<std::string, std::string>, Where> sleepers_;  // by wake token and namespace
};

}  // namespace sluice::flow
