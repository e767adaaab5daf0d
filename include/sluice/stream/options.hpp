// How a pipeline takes messages; fixed when it is made. Every bound is finite unless somebody wrote
// `unbounded`.
#pragma once
#include <cstddef>
#include <functional>
#include <limits>
#include <string>

#include "sluice/admission/gate.hpp"
#include "sluice/resilience/retry.hpp"

namespace sluice::stream {

/// For those who mean it: nothing is refused, memory is the limit.
inline constexpr std::size_t unbounded = std::numeric_limits<std::size_t>::max();

enum class Order : std::uint8_t {
  fifo,   ///< each stream's messages one after the other; streams do not wait for each other
  keyed,  ///< one at a time per ordering key, over all streams of the pipeline; keys in parallel
};

/// What a message that did not run does to the order it belonged to.
enum class OnDrop : std::uint8_t {
  end_stream,  ///< the stream ends with the sequence; what runs already finishes
  break_key,   ///< later messages of the key are refused (`ordering`); others go on
};

/// What a handler's final failure does. The message did run: there is no hole.
enum class OnFailure : std::uint8_t { go_on, break_key, end_stream };

struct Options {
  std::string name = "stream";  ///< in messages and metric labels

  struct Ordering {
    Order mode = Order::fifo;
    std::size_t capacity = 10'000;  ///< messages that may wait for their key's turn
    OnDrop on_drop = OnDrop::end_stream;
    OnFailure on_failure = OnFailure::go_on;
    std::size_t max_broken_keys = 1000;  ///< of one stream; past it the stream ends
  } ordering;

  /// Shared by all streams of the pipeline.
  struct Backpressure {
    admission::AtCapacity policy = admission::AtCapacity::queue;
    std::size_t capacity = 256;          ///< messages that run at once
    std::size_t queue_messages = 10'000;  ///< waiting, for a turn or a permit
    std::size_t queue_bytes = 64 << 20;
    std::size_t ceiling = 1024;  ///< of the soft policies; at least capacity
    milliseconds retry_after = seconds(1);
    std::function<void(std::size_t in_use, std::size_t capacity)> on_pressure;
  } backpressure;

  /// What one stream may have received and not finished: no read is posted without credit. Less when many
  /// streams fill what may wait: then each may hold a quarter of what is left of it.
  struct Credit {
    std::size_t messages = 256;
    std::size_t bytes = 4 << 20;      ///< passed by at most one message
    std::size_t max_ahead = 65'536;  ///< finished out of order beyond the first unfinished
  } credit;

  struct Retry {
    std::uint32_t attempts = 1;  ///< in all; 0 and 1: no retry
    resilience::BackoffPolicy backoff;
    resilience::RetryBudgetOptions budget;  ///< across all messages of the pipeline
  } retry;

  struct Shutdown {
    /// From drain() on; then what is left is cancelled, at the next drained() that is asked. Whoever drives
    /// the shutdown may cancel sooner: a Lifecycle does after its own.
    Duration grace = seconds(10);
    /// Draining takes the messages of open streams and refuses new streams only. False: new
    /// messages are refused too.
    bool drain_on_close = true;
  } shutdown;

  Duration message_deadline = seconds(30);  ///< for one message once it runs, retries included
  std::size_t max_failures_told = 100;      ///< in the summary, the first by sequence
};

/// Fails invalid_argument: which option, what it must be, what it is. Zero is never "unlimited".
Status check(const Options& options);

}  // namespace sluice::stream
