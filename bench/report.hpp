// What a benchmark says: one row per measured quantity, as a table for people or JSON lines for
// programs (bench, case, threads, metric, unit, median, p99, min, max, rounds).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace sluice::bench {

struct Options {
  bool json = false;
  int rounds = 5;           ///< repetitions of each case; medians are over these
  double seconds = 1.0;     ///< length of one round of a throughput case
  std::string store;        ///< postgres://…: durable benches run there; empty: SQLite
  std::uint64_t up_to = 1'000'000;  ///< transactions in the grown database of the growth bench
  std::string directory;    ///< where databases go; empty: a temporary folder beside /var/tmp
};

class Report {
 public:
  Report(std::string bench, bool json) : bench_(std::move(bench)), json_(json) {}
  /// One row; `samples` has one value per round (or per operation, for latencies).
  void add(const std::string& name, int threads, const std::string& metric, const std::string& unit,
           std::vector<double> samples);
  /// A sentence below the table (in JSON: {"bench":…,"note":…}).
  void note(const std::string& text);
  /// The median given for (name, threads, metric); 0 if there was none.
  double median(const std::string& name, int threads, const std::string& metric) const;
  /// A note said that something was wrong.
  bool wrong() const noexcept { return wrong_; }

 private:
  struct Row {
    std::string name;
    int threads;
    std::string metric;
    double median;
  };
  std::string bench_;
  bool json_;
  bool header_printed_ = false;
  bool wrong_ = false;
  std::vector<Row> rows_;
};

/// Wall seconds and this process's CPU seconds since construction.
class Stopwatch {
 public:
  Stopwatch();
  double wall() const;
  double cpu() const;

 private:
  double wall_;
  double cpu_;
};

/// Percentile q in [0, 1] of unsorted samples.
double percentile(std::vector<double> samples, double q);

/// A fresh folder below options.directory (or /var/tmp), removed when it goes.
class WorkFolder {
 public:
  explicit WorkFolder(const Options& options);
  ~WorkFolder();
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;
  std::string path(const std::string& name) const { return folder_ + "/" + name; }

 private:
  std::string folder_;
};

}  // namespace sluice::bench
