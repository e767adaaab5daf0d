// How far sluice send --stream is: told on stderr while it works.
#pragma once
#include <atomic>
#include <mutex>
#include <string>

#include "sluice/base/runtime.hpp"

namespace sluice::cli {

/// A line that is written over on a terminal; now and then a line elsewhere, or always a JSON object a line.
/// Told again by a timer while nothing is sent or answered. tell() and end() from one thread.
class Progress {
 public:
  enum class What : std::uint8_t { sending, results };
  Progress(Clock& clock, std::uint64_t all, What what, bool json);
  ~Progress() { end(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void tell(std::uint64_t sent, std::uint64_t done);
  void end();

 private:
  void tick();
  void print();
  std::string words(Instant now, double rate) const;
  std::string as_json(double rate) const;

  Clock& clock_;
  const std::uint64_t all_;
  const What what_;
  const bool json_, terminal_;
  std::mutex mutex_;
  Instant began_, told_, moved_;
  std::uint64_t before_ = 0, sent_ = 0, done_ = 0;
  bool first_ = true, open_ = false;
  std::atomic<bool> ended_{false};
  Parker parker_;
  Thread ticker_;
};

}  // namespace sluice::cli
