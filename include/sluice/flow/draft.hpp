// The store changes an exchange has collected. Nothing is written before the decision; then all of
// it is, in one Commit, or none.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "sluice/base/reply.hpp"
#include "sluice/store/commit.hpp"

namespace sluice::flow {

class Draft {
 public:
  /// `name` is what the caller is told when the precondition does not hold. `refusal` is then the
  /// stored reply; without one it is kind precondition_failed with `name` as its code.
  void require(store::Precondition what, std::string name, std::optional<Reply> refusal = {}) {
    guards.push_back({{std::move(what), std::move(name)}, std::move(refusal), false});
  }
  void put(store::KvKey key, Bytes value, std::optional<std::int64_t> number = {}) {
    mutations.push_back(store::KvPut{std::move(key), std::move(value), number});
  }
  void add(store::KvKey key, std::int64_t delta) {
    mutations.push_back(store::KvAdd{std::move(key), delta});
  }
  void erase(store::KvKey key) { mutations.push_back(store::KvDelete{std::move(key)}); }
  /// Takes `amount` of a number, refused when fewer are there, what this draft adds and takes of the
  /// same row before it included.
  void take(store::KvKey key, std::int64_t amount, std::string name,
            std::optional<Reply> refusal = {}) {
    std::int64_t before = 0;
    for (const auto& mutation : mutations)
      if (const auto* other = std::get_if<store::KvAdd>(&mutation); other && other->key == key) before += other->delta;
    require(store::KvAtLeast{key, amount - before}, std::move(name), std::move(refusal));
    add(std::move(key), -amount);
  }
  /// An event, made durable with the decision.
  void publish(std::string topic, Bytes payload) {
    events.push_back({std::move(topic), std::move(payload)});
  }
  bool empty() const noexcept { return guards.empty() && mutations.empty() && events.empty(); }
  void clear() noexcept {
    guards.clear();
    mutations.clear();
    events.clear();
  }

  struct Guard {
    store::Requirement requirement;
    std::optional<Reply> refusal;
    bool conflict = false;  ///< a verified read: when it fails, prepare runs again
  };
  struct Event {
    std::string topic;
    Bytes payload;
  };
  std::vector<Guard> guards;
  std::vector<store::Mutation> mutations;
  std::vector<Event> events;
};

}  // namespace sluice::flow
