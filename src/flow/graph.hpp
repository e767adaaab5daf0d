// The compiled shape of a flow: stages by number, groups by name.
#pragma once
#include <string>
#include <vector>

#include "sluice/flow/stage.hpp"

namespace sluice::flow {

struct Group {
  std::string name;
  std::vector<std::uint16_t> stages;  ///< indexes into Graph::stages
};

/// What a stage says of itself, asked once: the machine looks at it several times per step.
struct StageFacts {
  bool external = false;
  bool asynchronous = false;
  bool has_commit = false;
  bool has_abort = false;
  bool undoes_outside = true;  ///< all it does outside can be undone, by it and its children
};

struct Graph {
  std::vector<StagePtr> stages;
  std::vector<StageFacts> facts;  ///< of stages, by the same index
  std::vector<Group> groups;  ///< in the order they were first named
  std::uint16_t entry = 0;

  /// Appends a stage and what it says of itself; its index.
  std::uint16_t add(StagePtr stage);
  /// Index of a group; -1 when there is none of that name.
  int find_group(std::string_view name) const noexcept;
  /// Over names, order and effects of groups and stages: what recovery must agree on.
  std::uint64_t hash() const;
};

}  // namespace sluice::flow
