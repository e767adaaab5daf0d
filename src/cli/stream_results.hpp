// sluice send --stream --results: one JSON line for each message that is done, in the file's order.
#pragma once
#include <fstream>
#include <functional>
#include <string>
#include <utility>

#include "cli/json_lines.hpp"

namespace sluice::cli {

/// The server tells every failure of a window of this size.
inline constexpr std::uint64_t kWindowToldWhole = 1000;

/// Replies are asked for when the stream is over, under the messages' keys: nothing runs again.
class StreamResults {
 public:
  /// Fails invalid_argument when it cannot be written. What stands at `path` stays until write() is done.
  static Result<StreamResults> create(const std::string& path);
  StreamResults() = default;
  StreamResults(StreamResults&& other) noexcept
      : path_(std::exchange(other.path_, {})), part_(std::exchange(other.part_, {})), out_(std::move(other.out_)) {}
  StreamResults& operator=(StreamResults&&) = delete;
  ~StreamResults();
  /// Counts in `report` what was not settled, and is by now. Blocks; tells `progress` how many lines it has. Fails as the server does, after `how.give_up_after` without an
  /// answer, `cancelled` when `how.stop` says so, or when the disk is full.
  Status write(const transport::StreamClientOptions& how, transport::StreamReport& report, JsonLines& lines,
               Clock& clock, const std::function<void(std::uint64_t)>& progress);

 private:
  std::string path_, part_;
  std::ofstream out_;
};

}  // namespace sluice::cli
