// Read connections, opened when first needed, at most so many. A caller past the bound waits for one,
// but not for ever. Thread-safe.
#pragma once
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "store/sqlite/reader.hpp"

namespace sluice::store {

class ReaderPool {
 public:
  using Open = std::function<Result<std::unique_ptr<SqliteReader>>()>;
  struct Bounds {
    std::size_t readers = 4;
    milliseconds wait{2000};
  };
  ReaderPool(Bounds bounds, Open open)
      : max_(std::max<std::size_t>(1, bounds.readers)), wait_(bounds.wait), open_(std::move(open)) {}

  /// Fails overloaded when every connection stays busy, unavailable when none can be opened.
  Result<Answer> answer(const Query& query, WallTime now) {
    SLUICE_ASSIGN(std::unique_ptr<SqliteReader> reader, take());
    auto answer = reader->answer(query, now);
    {
      const std::scoped_lock lock(mutex_);
      if (answer)
        idle_.push_back(std::move(reader));
      else
        --opened_;  // whatever it is stuck in (a half ended read transaction, say) goes with it
    }
    returned_.notify_one();
    return answer;
  }
  void clear() {
    const std::scoped_lock lock(mutex_);
    opened_ -= idle_.size();
    idle_.clear();
  }

 private:
  Result<std::unique_ptr<SqliteReader>> take() {
    {
      std::unique_lock lock(mutex_);
      if (!returned_.wait_for(lock, wait_, [this] { return !idle_.empty() || opened_ < max_; }))
        return fail(Failure(FailureKind::overloaded, "readers_busy",
                            "all " + std::to_string(max_) + " read connections of the store were busy for " +
                                std::to_string(wait_.count()) +
                                " ms; ask for less at once, or raise max_readers")
                        .with_retry_after(seconds(1)));
      if (!idle_.empty()) {
        auto reader = std::move(idle_.back());
        idle_.pop_back();
        return reader;
      }
      ++opened_;
    }
    // Opened without the lock: whoever finds an idle one need not wait for the file system.
    auto reader = open_();
    if (reader) return reader;
    {
      const std::scoped_lock lock(mutex_);
      --opened_;
    }
    returned_.notify_one();
    // The writer has the database open, so whatever keeps a reader out is passing trouble (too many
    // open files, say) and nothing a caller could mistake for a verdict on its request.
    return fail(FailureKind::unavailable, reader.error().code(), std::string(reader.error().detail()));
  }

  const std::size_t max_;
  const milliseconds wait_;
  const Open open_;
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<SqliteReader>> idle_;
  std::size_t opened_ = 0;
};

}  // namespace sluice::store
