// The graph for people: lint, dot, mermaid. Routes are those that stages declare.
#include <algorithm>

#include "flow/graph.hpp"
#include "sluice/flow/flow.hpp"

namespace sluice::flow {
namespace {

std::string effect_mark(const Stage& stage) {
  return stage.effect() == Effect::external ? " (external)" : "";
}

// A stage made of others reserves nothing itself.
void check_abort(const Stage& stage, std::vector<std::string>& findings) {
  const auto children = stage.children();
  for (const auto& child : children) check_abort(*child, findings);
  if (children.empty() && stage.effect() == Effect::external && !stage.has_abort())
    findings.push_back("no_abort: external stage '" + std::string(stage.name()) + "' reserves outside and cannot undo it");
}

}  // namespace

std::vector<std::string> Flow::lint() const {
  std::vector<std::string> findings;
  if (graph_->groups.empty()) findings.push_back("no_entry: the flow has no group");
  if (!options_.entry.empty() && graph_->find_group(options_.entry) < 0)
    findings.push_back("unknown_group: entry '" + options_.entry + "' does not exist");
  for (const auto& stage : graph_->stages) check_abort(*stage, findings);
  if (graph_->groups.empty()) return findings;
  const int entry = options_.entry.empty() ? 0 : graph_->find_group(options_.entry);
  std::vector<bool> reached(graph_->groups.size());
  std::vector<int> todo{std::max(0, entry)};
  while (!todo.empty()) {
    const auto at = static_cast<std::size_t>(todo.back());
    todo.pop_back();
    if (reached[at]) continue;
    reached[at] = true;
    for (const auto index : graph_->groups[at].stages)
      for (const auto& target : graph_->stages[index]->routes())
        if (const int next = graph_->find_group(target); next >= 0)
          todo.push_back(next);
        else
          findings.push_back("unknown_group: stage '" + std::string(graph_->stages[index]->name()) +
                             "' routes to '" + target + "', which does not exist");
  }
  for (std::size_t i = 0; i < graph_->groups.size(); ++i)
    if (!reached[i])
      findings.push_back("unreachable: no stage declares a route to group '" + graph_->groups[i].name + "'");
  return findings;
}

std::string Flow::to_dot() const {
  std::string out = "digraph \"" + name_ + "\" {\n  rankdir=LR;\n";
  for (std::size_t g = 0; g < graph_->groups.size(); ++g) {
    const Group& group = graph_->groups[g];
    out += "  subgraph \"cluster_" + group.name + "\" {\n    label=\"" + group.name + "\";\n";
    std::string chain;
    for (const auto index : group.stages) {
      const Stage& stage = *graph_->stages[index];
      const std::string node = "s" + std::to_string(index);
      out += "    " + node + " [label=\"" + std::string(stage.name()) + effect_mark(stage) + "\"];\n";
      chain += (chain.empty() ? "" : " -> ") + node;
    }
    if (group.stages.size() > 1) out += "    " + chain + ";\n";
    out += "  }\n";
  }
  for (std::size_t i = 0; i < graph_->stages.size(); ++i)
    for (const auto& target : graph_->stages[i]->routes())
      if (const int g = graph_->find_group(target); g >= 0 && !graph_->groups[static_cast<std::size_t>(g)].stages.empty())
        out += "  s" + std::to_string(i) + " -> s" +
               std::to_string(graph_->groups[static_cast<std::size_t>(g)].stages[0]) + " [style=dashed];\n";
  return out + "}\n";
}

std::string Flow::to_mermaid() const {
  std::string out = "flowchart LR\n";
  for (const auto& group : graph_->groups) {
    out += "  subgraph " + group.name + "\n";
    for (std::size_t i = 0; i < group.stages.size(); ++i) {
      const Stage& stage = *graph_->stages[group.stages[i]];
      out += "    s" + std::to_string(group.stages[i]) + "[\"" + std::string(stage.name()) +
             effect_mark(stage) + "\"]\n";
      if (i > 0)
        out += "    s" + std::to_string(group.stages[i - 1]) + " --> s" + std::to_string(group.stages[i]) + "\n";
    }
    out += "  end\n";
  }
  for (std::size_t i = 0; i < graph_->stages.size(); ++i)
    for (const auto& target : graph_->stages[i]->routes())
      if (graph_->find_group(target) >= 0) out += "  s" + std::to_string(i) + " -.-> " + target + "\n";
  return out;
}

}  // namespace sluice::flow
