// Order by key for whoever needs no more than that: the gate's turns without its permits.
#pragma once
#include <string>

#include "sluice/admission/gate.hpp"
#include "sluice/base/task.hpp"

namespace sluice::stream {

/// The turn of a key. Move-only, given back when destroyed or by release(), which is idempotent,
/// from any thread. A forgotten one cannot block a key: it ends with its owner.
using Release = admission::Admission;

/// Thread-safe. Nobody may hold a turn or wait when it is destroyed.
class OrderingResolver {
 public:
  struct Options {
    std::string name = "ordering";
    std::size_t max_waiting = 10'000;  ///< past it: overloaded
  };
  explicit OrderingResolver(Options options);
  OrderingResolver() : OrderingResolver(Options{}) {}

  /// Waits for the key's turn, in the order of these calls; "" is one key for all. Uses the lane,
  /// scope and deadline of the task it runs in. Fails cancelled (or the scope's reason), timeout,
  /// overloaded, shutting_down.
  Task<Result<Release>> wait(std::string key);
  /// Those who wait fail shutting_down, newcomers too; turns that are out stay their owners'.
  /// Idempotent.
  void close() noexcept;
  std::size_t keys() const { return gate_.stats().keys; }  ///< with a turn out; idle ones cost nothing

 private:
  admission::Gate gate_;
};

}  // namespace sluice::stream
