// A flow's series, resolved once when its graph is fixed.
#pragma once
#include <array>
#include <vector>

#include "flow/graph.hpp"
#include "sluice/base/metrics.hpp"

namespace sluice::flow {

enum class Phase : std::uint8_t { prepare, commit, abort };
inline constexpr std::array<std::string_view, 3> kPhases{"prepare", "commit", "abort"};

class FlowMetrics {
 public:
  FlowMetrics(Metrics& metrics, std::string_view flow, const Graph& graph);
  void stage(std::uint16_t stage, Phase phase, bool ok, Duration took) noexcept {
    stages_[stage][static_cast<std::size_t>(phase)][ok ? 0 : 1]->observe(took);
  }
  /// `outcome` is the number of an OutcomeKind.
  void outcome(std::size_t outcome, Duration took) noexcept {
    outcomes_[outcome]->observe(took);
  }

 private:
  using Results = std::array<Histogram*, 2>;  // ok, failed
  std::vector<std::array<Results, 3>> stages_;
  std::array<Histogram*, 5> outcomes_{};
};

}  // namespace sluice::flow
