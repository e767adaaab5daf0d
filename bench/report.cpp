#include "bench/report.hpp"

#include <fmt/core.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace sluice::bench {
namespace {

double read_clock(clockid_t id) {
  timespec t{};
  clock_gettime(id, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// Names and notes are our own text: quotes and backslashes do not occur in them.
std::string number(double v) { return std::abs(v) >= 1000 ? fmt::format("{:.0f}", v) : fmt::format("{:.4g}", v); }

}  // namespace

double percentile(std::vector<double> samples, double q) {
  if (samples.empty()) return 0;
  const auto rank = static_cast<std::size_t>(q * static_cast<double>(samples.size() - 1) + 0.5);
  std::ranges::nth_element(samples, samples.begin() + static_cast<std::ptrdiff_t>(rank));
  return samples[rank];
}

void Report::add(const std::string& name, int threads, const std::string& metric,
                 const std::string& unit, std::vector<double> samples) {
  const double median = percentile(samples, 0.5);
  const double p99 = percentile(samples, 0.99);
  const auto [low, high] = std::ranges::minmax(samples);
  rows_.push_back({name, threads, metric, median});
  if (json_) {
    fmt::print("{}\n", nlohmann::ordered_json{{"bench", bench_}, {"case", name}, {"threads", threads}, {"metric", metric}, {"unit", unit}, {"median", median},
                                              {"p99", p99}, {"min", low}, {"max", high}, {"rounds", samples.size()}}.dump());
  } else {
    if (!header_printed_)
      fmt::print("{:<34} {:>7}  {:<22} {:>10} {:>10} {:>10} {:>10}  {}\n", bench_, "callers", "metric",
                 "median", "p99", "min", "max", "unit");
    header_printed_ = true;
    fmt::print("{:<34} {:>7}  {:<22} {:>10} {:>10} {:>10} {:>10}  {}\n", name, threads, metric,
               number(median), number(p99), number(low), number(high), unit);
  }
  std::fflush(stdout);
}

void Report::note(const std::string& text) {
  if (text.find("WRONG") != std::string::npos || text.find("WITHOUT AN ANSWER") != std::string::npos) wrong_ = true;
  if (json_)
    fmt::print("{}\n", nlohmann::ordered_json{{"bench", bench_}, {"note", text}}.dump());
  else
    fmt::print("  {}\n", text);
  std::fflush(stdout);
}

double Report::median(const std::string& name, int threads, const std::string& metric) const {
  for (const auto& row : rows_)
    if (row.name == name && row.threads == threads && row.metric == metric) return row.median;
  return 0;
}

Stopwatch::Stopwatch()
    : wall_(read_clock(CLOCK_MONOTONIC)), cpu_(read_clock(CLOCK_PROCESS_CPUTIME_ID)) {}
double Stopwatch::wall() const { return read_clock(CLOCK_MONOTONIC) - wall_; }
double Stopwatch::cpu() const { return read_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu_; }

WorkFolder::WorkFolder(const Options& options) {
  std::string pattern =
      (options.directory.empty() ? std::string("/var/tmp") : options.directory) + "/sluice-bench-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr)
    throw std::runtime_error("cannot make a folder like " + pattern +
                             ": name a writable one with --directory");
  folder_ = pattern;
}

WorkFolder::~WorkFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

}  // namespace sluice::bench
