#include "sluice/base/log.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <optional>
#include <utility>

#include "sluice/base/bytes.hpp"
#include "sluice/base/mask.hpp"

namespace sluice {
namespace {

constexpr std::array<std::string_view, 6> kLevelNames = {"trace", "debug", "info",
                                                         "warn",  "error", "off"};

void append_json_string(std::string& out, std::string_view text) {
  out.push_back('"');
  for (const char c : text) {
    switch (c) {
      case '"':
        out.append("\\\"");
        break;
      case '\\':
        out.append("\\\\");
        break;
      case '\n':
        out.append("\\n");
        break;
      case '\r':
        out.append("\\r");
        break;
      case '\t':
        out.append("\\t");
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)
          fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<unsigned char>(c));
        else
          out.push_back(c);
    }
  }
  out.push_back('"');
}

// Quoted when it could be mistaken for several words, or could forge a line.
void append_text(std::string& out, std::string_view text) {
  const bool plain = !text.empty() && text.find_first_of(" \"=\\") == std::string_view::npos &&
                     std::ranges::none_of(text, [](char c) {
                       return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
                     });
  if (plain)
    out.append(text);
  else
    append_json_string(out, text);
}

/// How many lines of one message may pass. A fixed table indexed by hash bounds the memory: two
/// messages that collide share a budget, which only makes them rarer.
class RateBound {
 public:
  explicit RateBound(std::uint32_t max_per_second) : max_per_second_(max_per_second) {}
  /// How many lines were dropped before this one; none: drop this one too.
  std::optional<std::uint64_t> admit(std::string_view message, Instant now) {
    Slot& slot = slots_[hash64(message) % slots_.size()];
    const std::lock_guard lock(mutex_);
    if (now - slot.since >= seconds(1)) {
      slot.since = now;
      slot.passed = 0;
    }
    if (slot.passed >= max_per_second_) {
      ++slot.dropped;
      return std::nullopt;
    }
    ++slot.passed;
    return std::exchange(slot.dropped, 0);
  }

 private:
  struct Slot {
    Instant since{};
    std::uint32_t passed = 0;
    std::uint64_t dropped = 0;
  };
  const std::uint32_t max_per_second_;
  std::mutex mutex_;
  std::array<Slot, 256> slots_{};
};

class StructuredLogger final : public Logger {
 public:
  StructuredLogger(Clock& clock, std::shared_ptr<LogSink> sink, LogOptions options)
      : clock_(clock), sink_(std::move(sink)), options_(options), rate_(options.max_per_second) {
    set_level(options.level);
  }

 private:
  void write(const LogRecord& record) noexcept override try {
    const auto dropped = rate_.admit(record.message, clock_.now());
    if (!dropped) return;
    std::string line;
    line.reserve(256);
    if (options_.json)
      format_json(line, record, *dropped);
    else
      format_text(line, record, *dropped);
    sink_->write(record.level, line);
  } catch (...) {
    // A log line is never worth the work that wanted to log it.
  }

  std::string wall() const {
    const auto now = clock_.wall();
    const auto whole = std::chrono::floor<seconds>(now);
    return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(whole.time_since_epoch().count()),
                       (now - whole).count());
  }

  void format_json(std::string& line, const LogRecord& record, std::uint64_t dropped) const {
    line.append("{\"at\":\"").append(wall()).append("\",\"level\":\"");
    line.append(log_level_name(record.level)).append("\",\"message\":");
    append_json_string(line, record.message);
    if (!record.correlation.empty()) {
      line.append(",\"correlation\":");
      append_json_string(line, record.correlation);
    }
    for (const LogField& field : record.fields) {
      line.push_back(',');
      append_json_string(line, field.key);
      line.push_back(':');
      append_value(line, field, true);
    }
    if (dropped > 0) fmt::format_to(std::back_inserter(line), ",\"dropped_before\":{}", dropped);
    line.push_back('}');
  }

  void format_text(std::string& line, const LogRecord& record, std::uint64_t dropped) const {
    fmt::format_to(std::back_inserter(line), "{} {:5} ", wall(), log_level_name(record.level));
    line.append(mask_text(record.message));
    for (const LogField& field : record.fields) {
      line.push_back(' ');
      append_text(line, field.key);
      line.push_back('=');
      append_value(line, field, false);
    }
    if (!record.correlation.empty()) {
      line.append(" correlation=");
      append_text(line, record.correlation);
    }
    if (dropped > 0) fmt::format_to(std::back_inserter(line), " dropped_before={}", dropped);
  }

  void append_value(std::string& line, const LogField& field, bool json) const {
    // Numbers stay bare, unless a secret or a card number hides behind one, or JSON has no word
    // for it (infinities).
    bool bare = true;
    const std::string text = std::visit(
        [&](const auto& value) {
          using V = std::decay_t<decltype(value)>;
          if constexpr (std::is_same_v<V, std::string_view>) bare = false;
          if constexpr (std::is_same_v<V, double>) bare = std::isfinite(value);
          return fmt::format("{}", value);
        },
        field.value);
    std::string shown = mask_field(field.key, text);
    if (bare && shown == text) {
      line.append(text);
      return;
    }
    if (shown.size() > options_.max_value_bytes) {
      shown.resize(options_.max_value_bytes);
      shown.append("...");
    }
    json ? append_json_string(line, shown) : append_text(line, shown);
  }

  Clock& clock_;
  std::shared_ptr<LogSink> sink_;
  LogOptions options_;
  RateBound rate_;
};

class StderrSink final : public LogSink {
 public:
  StderrSink() { sink_.set_pattern("%^%v%$"); }
  void write(LogLevel level, std::string_view line) override {
    sink_.log(spdlog::details::log_msg("", static_cast<spdlog::level::level_enum>(level),
                                       spdlog::string_view_t(line.data(), line.size())));
  }

 private:
  spdlog::sinks::stderr_color_sink_mt sink_;
};
static_assert(static_cast<int>(LogLevel::error) == SPDLOG_LEVEL_ERROR);

}  // namespace

std::string_view log_level_name(LogLevel level) noexcept {
  return kLevelNames[std::min<std::size_t>(static_cast<std::size_t>(level), 5)];
}

Logger& null_logger() noexcept {
  static NullLogger logger;
  return logger;
}

std::unique_ptr<Logger> make_logger(Clock& clock, std::shared_ptr<LogSink> sink,
                                    LogOptions options) {
  return std::make_unique<StructuredLogger>(clock, std::move(sink), options);
}

std::shared_ptr<LogSink> stderr_sink() { return std::make_shared<StderrSink>(); }

}  // namespace sluice
