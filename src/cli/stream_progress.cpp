#include "cli/stream_progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace sluice::cli {
namespace {

constexpr Duration kStill = seconds(3);
constexpr Duration kEvery = milliseconds(100);  // on a terminal; of what is sent the client says it no oftener
constexpr Duration kLineEvery = seconds(5);

}  // namespace

Progress::Progress(Clock& clock, std::uint64_t all, What what, bool json)
    : clock_(clock), all_(all), what_(what), json_(json), terminal_(!json && isatty(STDERR_FILENO) == 1), began_(clock.now()) {}

void Progress::tell(std::uint64_t sent, std::uint64_t done) {
  const std::lock_guard lock(mutex_);
  if (first_ || done != done_) moved_ = clock_.now();
  sent_ = sent;
  done_ = done;
  print();
  if (!ticker_.joinable()) ticker_ = Thread("progress", [this] { tick(); });
}

void Progress::end() {
  if (!ended_.exchange(true) && ticker_.joinable()) {
    parker_.wake();
    ticker_.join();
    told_ = Instant();
    if (open_) print();  // the last is told
  }
  if (std::exchange(open_, false)) fmt::print(stderr, "\n");
}

void Progress::tick() {
  while (!ended_) {
    parker_.park(seconds(1));
    const std::lock_guard lock(mutex_);
    if (!ended_) print();
  }
}

void Progress::print() {
  const Instant now = clock_.now();
  if (std::exchange(first_, false)) {
    before_ = what_ == What::sending ? done_ : 0;
    began_ = moved_ = now;
  } else if (now - told_ < (!terminal_ ? kLineEvery : what_ == What::results ? kEvery : Duration::zero())) {
    return;
  }
  told_ = now;
  const double took = std::chrono::duration<double>(now - began_).count();
  const double rate = took > 0 ? static_cast<double>(done_ - before_) / took : 0;
  if (json_)
    fmt::print(stderr, "{}\n", as_json(rate));
  else
    fmt::print(stderr, "{}{}{}", terminal_ ? "\r" : "", words(now, rate), terminal_ ? "\033[K" : "\n");
  std::fflush(stderr);
  open_ = terminal_;
}

std::string Progress::words(Instant now, double rate) const {
  std::string left;
  if (now - moved_ >= kStill && done_ < all_)
    left = fmt::format(", nothing new for {} s", std::chrono::duration_cast<seconds>(now - moved_).count());
  else if (rate > 0 && done_ < all_)
    left = fmt::format(", {:.0f} s left", static_cast<double>(all_ - done_) / rate);
  const double percent = all_ == 0 ? 100.0 : 100.0 * static_cast<double>(done_) / static_cast<double>(all_);
  if (what_ == What::results) return fmt::format("results: {} of {} lines ({:.0f} %), {:.0f}/s{}", done_, all_, percent, rate, left);
  return fmt::format("{} of {} done ({:.0f} %), {} sent, {:.0f}/s{}", done_, all_, percent, sent_ - std::min(sent_, before_), rate, left);
}

std::string Progress::as_json(double rate) const {
  nlohmann::ordered_json out{{"progress", what_ == What::results ? "results" : "sending"}, {"done", done_}, {"messages", all_}};
  if (what_ == What::sending) out["sent"] = sent_;
  out["per_second"] = static_cast<std::uint64_t>(rate);
  return out.dump();
}

}  // namespace sluice::cli
