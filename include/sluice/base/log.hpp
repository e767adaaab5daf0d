// Structured logs: a level, a constant message, keys with values, and the correlation id of the
// request. Rooms take a Logger by constructor; nothing logs globally. Logging never throws, never
// blocks on more than the sink, is bounded per message, and masks secrets by field name.
#pragma once
#include <atomic>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "sluice/base/time.hpp"

namespace sluice {

enum class LogLevel : std::uint8_t { trace, debug, info, warn, error, off };
std::string_view log_level_name(LogLevel level) noexcept;

/// A key with a value. The views must live through the call that logs them.
struct LogField {
  std::string_view key;
  std::variant<std::string_view, std::int64_t, std::uint64_t, double, bool> value;

  LogField(std::string_view k, std::string_view v) : key(k), value(v) {}
  LogField(std::string_view k, const char* v) : key(k), value(std::string_view(v)) {}
  LogField(std::string_view k, const std::string& v) : key(k), value(std::string_view(v)) {}
  LogField(std::string_view k, bool v) : key(k), value(v) {}
  LogField(std::string_view k, std::floating_point auto v)
      : key(k), value(static_cast<double>(v)) {}
  LogField(std::string_view k, std::signed_integral auto v)
      : key(k), value(static_cast<std::int64_t>(v)) {}
  LogField(std::string_view k, std::unsigned_integral auto v)
      : key(k), value(static_cast<std::uint64_t>(v)) {}
};

/// What a Logger implementation gets; views live through the call.
struct LogRecord {
  LogLevel level = LogLevel::info;
  std::string_view message;
  std::string_view correlation;
  std::span<const LogField> fields;
};

/// Thread-safe.
class Logger {
 public:
  virtual ~Logger() = default;
  bool enabled(LogLevel level) const noexcept {
    return level >= level_.load(std::memory_order_relaxed);
  }
  void set_level(LogLevel level) noexcept { level_.store(level, std::memory_order_relaxed); }

  /// `message` should be a constant: it is what people search for and what is rate-bounded.
  void log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields = {},
           std::string_view correlation = {}) noexcept {
    if (enabled(level)) write({level, message, correlation, {fields.begin(), fields.size()}});
  }
  void debug(std::string_view message, std::initializer_list<LogField> fields = {},
             std::string_view correlation = {}) noexcept {
    log(LogLevel::debug, message, fields, correlation);
  }
  void info(std::string_view message, std::initializer_list<LogField> fields = {},
            std::string_view correlation = {}) noexcept {
    log(LogLevel::info, message, fields, correlation);
  }
  void warn(std::string_view message, std::initializer_list<LogField> fields = {},
            std::string_view correlation = {}) noexcept {
    log(LogLevel::warn, message, fields, correlation);
  }
  void error(std::string_view message, std::initializer_list<LogField> fields = {},
             std::string_view correlation = {}) noexcept {
    log(LogLevel::error, message, fields, correlation);
  }

 protected:
  virtual void write(const LogRecord& record) noexcept = 0;

 private:
  std::atomic<LogLevel> level_{LogLevel::info};
};

/// Drops everything.
class NullLogger final : public Logger {
 public:
  NullLogger() noexcept { set_level(LogLevel::off); }

 private:
  void write(const LogRecord&) noexcept override {}
};
/// A shared NullLogger, for default arguments.
Logger& null_logger() noexcept;

/// Where finished lines go, without line ends. Thread-safe; may throw (the line is then lost).
class LogSink {
 public:
  virtual ~LogSink() = default;
  virtual void write(LogLevel level, std::string_view line) = 0;
};

struct LogOptions {
  LogLevel level = LogLevel::info;
  bool json = false;  ///< JSON lines; else text for people
  /// Lines per message and second; what is over is counted and told by the next line that passes.
  std::uint32_t max_per_second = 50;
  std::size_t max_value_bytes = 4096;  ///< longer values are cut
};

/// Formats, masks and bounds; writes to `sink`. `clock` must outlive it.
std::unique_ptr<Logger> make_logger(Clock& clock, std::shared_ptr<LogSink> sink,
                                    LogOptions options = {});
/// Standard error, coloured on a terminal.
std::shared_ptr<LogSink> stderr_sink();

}  // namespace sluice
