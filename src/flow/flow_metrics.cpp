#include "flow/flow_metrics.hpp"

#include "sluice/flow/flow.hpp"

namespace sluice::flow {

FlowMetrics::FlowMetrics(Metrics& metrics, std::string_view flow, const Graph& graph) {
  for (std::size_t i = 0; i < outcomes_.size(); ++i)
    outcomes_[i] = &metrics.histogram(
        "sluice_flow_seconds", "Time an exchange took until its outcome was told",
        {{"flow", std::string(flow)},
         {"outcome", std::string(to_string(static_cast<OutcomeKind>(i)))}});
  stages_.resize(graph.stages.size());
  for (std::size_t s = 0; s < stages_.size(); ++s)
    for (std::size_t p = 0; p < kPhases.size(); ++p)
      for (std::size_t r = 0; r < 2; ++r)
        stages_[s][p][r] = &metrics.histogram(
            "sluice_flow_stage_seconds", "Time one phase of one stage took",
            {{"flow", std::string(flow)},
             {"stage", std::string(graph.stages[s]->name())},
             {"phase", std::string(kPhases[p])},
             {"outcome", r == 0 ? "ok" : "failed"}});
}

}  // namespace sluice::flow
