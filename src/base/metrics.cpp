#include "sluice/base/metrics.hpp"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <list>
#include <map>
#include <mutex>
#include <variant>

#include "sluice/base/failure.hpp"

namespace sluice {
namespace {

constexpr std::array kLatencyBounds = {1e-5,   2.5e-5, 5e-5, 1e-4,   2.5e-4, 5e-4, 1e-3,
                                       2.5e-3, 5e-3,   1e-2, 2.5e-2, 5e-2,   0.1,  0.25,
                                       0.5,    1.0,    2.5,  5.0,    10.0};

bool valid_name(std::string_view name) noexcept {
  const auto first = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':';
  };
  return !name.empty() && first(name[0]) &&
         std::ranges::all_of(name, [&](char c) { return first(c) || (c >= '0' && c <= '9'); });
}

prometheus::ClientMetric client_metric(const Labels& labels) {
  prometheus::ClientMetric metric;
  for (const auto& [name, value] : labels) {
    auto& label = metric.label.emplace_back();
    label.name = name;
    label.value = value;
  }
  return metric;
}

prometheus::ClientMetric exposed(const Labels& labels, const Counter& counter) {
  auto metric = client_metric(labels);
  metric.counter.value = static_cast<double>(counter.value());
  return metric;
}
prometheus::ClientMetric exposed(const Labels& labels, const Gauge& gauge) {
  auto metric = client_metric(labels);
  metric.gauge.value = static_cast<double>(gauge.value());
  return metric;
}
prometheus::ClientMetric exposed(const Labels& labels, const Histogram& histogram) {
  auto metric = client_metric(labels);
  std::uint64_t cumulative = 0;
  for (std::size_t i = 0; i <= histogram.bounds().size(); ++i) {
    cumulative += histogram.count(i);
    auto& bucket = metric.histogram.bucket.emplace_back();
    bucket.cumulative_count = cumulative;
    bucket.upper_bound = i < histogram.bounds().size() ? histogram.bounds()[i]
                                                       : std::numeric_limits<double>::infinity();
  }
  metric.histogram.sample_count = cumulative;
  metric.histogram.sample_sum = histogram.sum();
  return metric;
}

template <class T>
constexpr prometheus::MetricType kType = prometheus::MetricType::Counter;
template <>
constexpr prometheus::MetricType kType<Gauge> = prometheus::MetricType::Gauge;
template <>
constexpr prometheus::MetricType kType<Histogram> = prometheus::MetricType::Histogram;

template <class T>
struct Family {
  std::string help;
  std::map<Labels, std::unique_ptr<T>> series;
};
using AnyFamily = std::variant<Family<Counter>, Family<Gauge>, Family<Histogram>>;

}  // namespace

std::span<const double> latency_bounds() noexcept { return kLatencyBounds; }

Histogram::Histogram(std::span<const double> bounds)
    : bounds_(bounds.begin(), bounds.end()),
      counts_(std::make_unique<std::atomic<std::uint64_t>[]>(bounds.size() + 1)) {
  SLUICE_ASSERT(std::ranges::is_sorted(bounds_), "histogram bounds must rise");
}

void Histogram::observe(double value) noexcept {
  const auto at = std::ranges::lower_bound(bounds_, value) - bounds_.begin();
  counts_[static_cast<std::size_t>(at)].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

struct Metrics::Impl {
  explicit Impl(MetricsBounds b) : bounds(b) {}

  template <class T, class Make>
  T& find_or_make(std::string_view name, std::string_view help, const Labels& labels, Make make) {
    SLUICE_ASSERT(valid_name(name), "not a Prometheus metric name: " + std::string(name));
    const std::lock_guard lock(mutex);
    auto at = families.find(name);
    if (at == families.end())
      at = families.emplace(std::string(name), Family<T>{std::string(help), {}}).first;
    auto* family = std::get_if<Family<T>>(&at->second);
    SLUICE_ASSERT(family != nullptr, "metric registered twice with different types: " + at->first);
    Labels key = labels;
    if (!family->series.contains(key) && family->series.size() >= bounds.max_series_per_name)
      for (auto& [label, value] : key) value = "other";
    auto& series = family->series[key];
    if (!series) series = make();
    return *series;
  }

  MetricsBounds bounds;
  std::mutex mutex;
  std::map<std::string, AnyFamily, std::less<>> families;
  std::mutex hooks_mutex;  // held while hooks run, so that none runs after its handle is gone
  std::list<std::function<void()>> hooks;
};

Metrics::Metrics(MetricsBounds bounds) : impl_(std::make_unique<Impl>(bounds)) {}
Metrics::~Metrics() = default;

Counter& Metrics::counter(std::string_view name, std::string_view help, const Labels& labels) {
  return impl_->find_or_make<Counter>(name, help, labels,
                                      [] { return std::make_unique<Counter>(); });
}
Gauge& Metrics::gauge(std::string_view name, std::string_view help, const Labels& labels) {
  return impl_->find_or_make<Gauge>(name, help, labels, [] { return std::make_unique<Gauge>(); });
}
bool Metrics::has_room(std::string_view name, const Labels& labels) const {
  const std::lock_guard lock(impl_->mutex);
  const auto at = impl_->families.find(name);
  if (at == impl_->families.end()) return impl_->bounds.max_series_per_name > 0;
  return std::visit(
      [&](const auto& family) { return family.series.contains(labels) || family.series.size() < impl_->bounds.max_series_per_name; },
      at->second);
}
void Metrics::forget_gauge(std::string_view name, const Labels& labels) {
  const std::lock_guard lock(impl_->mutex);
  const auto at = impl_->families.find(name);
  if (at == impl_->families.end()) return;
  if (auto* family = std::get_if<Family<Gauge>>(&at->second)) family->series.erase(labels);
}
Histogram& Metrics::histogram(std::string_view name, std::string_view help, const Labels& labels,
                              std::span<const double> bounds) {
  return impl_->find_or_make<Histogram>(name, help, labels,
                                        [&] { return std::make_unique<Histogram>(bounds); });
}

std::unique_ptr<Metrics::Hook> Metrics::before_exposition(std::function<void()> refresh) {
  struct Registered final : Hook {
    Impl* impl = nullptr;
    std::list<std::function<void()>>::iterator at;
    ~Registered() override {
      const std::lock_guard lock(impl->hooks_mutex);
      impl->hooks.erase(at);
    }
  };
  auto hook = std::make_unique<Registered>();
  const std::lock_guard lock(impl_->hooks_mutex);
  hook->impl = impl_.get();
  hook->at = impl_->hooks.insert(impl_->hooks.end(), std::move(refresh));
  return hook;
}

std::string Metrics::prometheus_text() {
  {
    const std::lock_guard lock(impl_->hooks_mutex);
    for (auto& refresh : impl_->hooks) refresh();
  }
  std::vector<prometheus::MetricFamily> families;
  {
    const std::lock_guard lock(impl_->mutex);
    for (const auto& [name, any] : impl_->families) {
      auto& out = families.emplace_back();
      out.name = name;
      std::visit(
          [&]<class T>(const Family<T>& family) {
            out.help = family.help;
            out.type = kType<T>;
            for (const auto& [labels, series] : family.series)
              out.metric.push_back(exposed(labels, *series));
          },
          any);
    }
  }
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace sluice
