#include "flow/flow_metrics.hpp"

#include "sluice/flow/flow.hpp"

namespace sluice::flow {

FlowMetrics::FlowMetrics(Metrics& metrics, std::string_view flow, const Graph& graph) {
  stages_.resize(graph.stages.size());
  // Those of shadow traffic are made by the first of it: most flows see none, and series are bounded.
  resolve(metrics, flow, graph, false);
  make_shadow_ = [this, &metrics, name = std::string(flow), &graph] { resolve(metrics, name, graph, true); };
}

void FlowMetrics::resolve(Metrics& metrics, std::string_view flow, const Graph& graph, bool shadow) {
  const std::string traffic = shadow ? "shadow" : "live";
  for (std::size_t i = 0; i < kOutcomes; ++i)
    outcomes_[shadow][i] = &metrics.histogram(
        "sluice_flow_seconds", "Time an exchange took until its outcome was told",
        {{"flow", std::string(flow)},
         {"outcome", std::string(to_string(static_cast<OutcomeKind>(i)))},
         {"traffic", traffic}});
  for (std::size_t s = 0; s < stages_.size(); ++s)
    for (std::size_t p = 0; p < kPhases.size(); ++p)
      for (std::size_t r = 0; r < 2; ++r)
        stages_[s][p][shadow][r] = &metrics.histogram(
            "sluice_flow_stage_seconds", "Time one phase of one stage took",
            {{"flow", std::string(flow)},
             {"stage", std::string(graph.stages[s]->name())},
             {"phase", std::string(kPhases[p])},
             {"outcome", r == 0 ? "ok" : "failed"},
             {"traffic", traffic}});
}

}  // namespace sluice::flow
