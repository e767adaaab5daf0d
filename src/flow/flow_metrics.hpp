// A flow's series, resolved once: those of live traffic when its graph is fixed, those of shadow traffic when
// there is some.
#pragma once
#include <array>
#include <functional>
#include <mutex>
#include <vector>

#include "flow/graph.hpp"
#include "sluice/base/metrics.hpp"

namespace sluice::flow {

enum class Phase : std::uint8_t { prepare, commit, abort };
inline constexpr std::array<std::string_view, 3> kPhases{"prepare", "commit", "abort"};

class FlowMetrics {
 public:
  FlowMetrics(Metrics& metrics, std::string_view flow, const Graph& graph);
  FlowMetrics(const FlowMetrics&) = delete;
  FlowMetrics& operator=(const FlowMetrics&) = delete;
  void stage(std::uint16_t stage, Phase phase, bool ok, Duration took, bool shadow) {
    if (shadow) std::call_once(shadow_made_, make_shadow_);
    stages_[stage][static_cast<std::size_t>(phase)][shadow][ok ? 0 : 1]->observe(took);
  }
  /// `outcome` is the number of an OutcomeKind.
  void outcome(std::size_t outcome, Duration took, bool shadow) {
    if (shadow) std::call_once(shadow_made_, make_shadow_);
    outcomes_[shadow][outcome]->observe(took);
  }

 private:
  void resolve(Metrics& metrics, std::string_view flow, const Graph& graph, bool shadow);
  static constexpr std::size_t kOutcomes = 5;
  using Results = std::array<Histogram*, 2>;  // ok, failed
  using Traffic = std::array<Results, 2>;     // live, shadow
  std::vector<std::array<Traffic, 3>> stages_;
  std::array<std::array<Histogram*, kOutcomes>, 2> outcomes_{};
  std::once_flag shadow_made_;
  std::function<void()> make_shadow_;
};

}  // namespace sluice::flow
