#include <gtest/gtest.h>

#include "sluice/base/metrics.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice {
namespace {

TEST(Metrics, TheSameNameAndLabelsAreOneSeries) {
  Metrics metrics;
  Counter& a = metrics.counter("sluice_x_total", "X.", {{"k", "1"}});
  Counter& b = metrics.counter("sluice_x_total", "X.", {{"k", "1"}});
  Counter& c = metrics.counter("sluice_x_total", "X.", {{"k", "2"}});
  EXPECT_EQ(&a, &b);
  EXPECT_NE(&a, &c);
}

TEST(Metrics, CountsFromManyThreadsAreAllThere) {
  Metrics metrics;
  Counter& counter = metrics.counter("c_total", "C.");
  Histogram& histogram = metrics.histogram("h_seconds", "H.");
  {
    std::vector<Thread> threads;
    for (int t = 0; t < 3; ++t)
      threads.emplace_back("count", [&] {
        for (int i = 0; i < 20'000; ++i) {
          counter.add();
          histogram.observe(1.0);
        }
      });
  }
  EXPECT_EQ(counter.value(), 60'000u);
  EXPECT_EQ(histogram.sum(), 60'000.0);
}

TEST(Metrics, LabelValuesPastTheBoundCountAsOther) {
  Metrics metrics({.max_series_per_name = 3});
  for (int i = 0; i < 100; ++i)
    metrics.counter("c_total", "C.", {{"user", std::to_string(i)}}).add();
  EXPECT_EQ(metrics.counter("c_total", "C.", {{"user", "0"}}).value(), 1u);
  EXPECT_EQ(metrics.counter("c_total", "C.", {{"user", "other"}}).value(), 97u);
  const std::string text = metrics.prometheus_text();
  EXPECT_NE(text.find("c_total{user=\"other\"} 97"), std::string::npos) << text;
}

TEST(Metrics, ExpositionIsPrometheusText) {
  Metrics metrics;
  metrics.gauge("depth", "Queue depth.", {{"q", "a\"b\nc"}}).set(-4);
  Histogram& histogram = metrics.histogram("took_seconds", "Took.", {}, std::array{0.1, 1.0});
  histogram.observe(milliseconds(50));
  histogram.observe(0.1);
  histogram.observe(0.5);
  histogram.observe(50);
  const std::string text = metrics.prometheus_text();
  EXPECT_NE(text.find("# HELP depth Queue depth.\n# TYPE depth gauge\n"), std::string::npos);
  EXPECT_NE(text.find("depth{q=\"a\\\"b\\nc\"} -4"), std::string::npos) << text;
  EXPECT_NE(text.find("took_seconds_bucket{le=\"0.1\"} 2"), std::string::npos) << text;
  EXPECT_NE(text.find("took_seconds_bucket{le=\"1\"} 3"), std::string::npos) << text;
  EXPECT_NE(text.find("took_seconds_bucket{le=\"+Inf\"} 4"), std::string::npos) << text;
  EXPECT_NE(text.find("took_seconds_count 4"), std::string::npos) << text;
}

TEST(Metrics, HooksRunBeforeExpositionUntilTheirHandleGoes) {
  Metrics metrics;
  Gauge& gauge = metrics.gauge("g", "G.");
  auto hook = metrics.before_exposition([&] { gauge.add(1); });
  EXPECT_NE(metrics.prometheus_text().find("g 1"), std::string::npos);
  hook.reset();
  EXPECT_NE(metrics.prometheus_text().find("g 1"), std::string::npos);
}

TEST(MetricsDeathTest, ABadNameOrTypeIsADefect) {
  Metrics metrics;
  metrics.counter("c_total", "C.");
  EXPECT_DEATH(metrics.gauge("c_total", "C."), "different types");
  EXPECT_DEATH(metrics.counter("bad name", "C."), "not a Prometheus metric name");
}

}  // namespace
}  // namespace sluice
