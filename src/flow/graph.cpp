#include "flow/graph.hpp"

#include <algorithm>

#include "flow/combined.hpp"

namespace sluice::flow {
namespace {

void write_shape(ByteWriter& writer, const Stage& stage) {
  writer.bytes(stage.name());
  writer.u8(static_cast<std::uint8_t>(stage.effect()));
  const auto children = stage.children();
  // Where children have children, which are whose; flat ones keep the hash they were recorded with.
  const bool nested = std::ranges::any_of(children, [](const StagePtr& child) { return !child->children().empty(); });
  if (nested) writer.varint(children.size());
  for (const auto& child : children) {
    write_shape(writer, *child);
    if (nested) writer.varint(child->children().size());
  }
}

}  // namespace

std::uint16_t Graph::add(StagePtr stage) {
  facts.push_back({.external = stage->effect() == Effect::external,
                   .asynchronous = stage->asynchronous(),
                   .has_commit = stage->has_commit(),
                   .has_abort = stage->has_abort(),
                   .undoes_outside = undoes_outside(*stage)});
  stages.push_back(std::move(stage));
  return static_cast<std::uint16_t>(stages.size() - 1);
}

int Graph::find_group(std::string_view name) const noexcept {
  for (std::size_t i = 0; i < groups.size(); ++i)
    if (groups[i].name == name) return static_cast<int>(i);
  return -1;
}

std::uint64_t Graph::hash() const {
  Bytes shape;
  ByteWriter writer(shape);
  writer.varint(entry);
  for (const auto& group : groups) {
    writer.bytes(group.name);
    writer.varint(group.stages.size());
    for (const auto index : group.stages) {
      write_shape(writer, *stages[index]);
    }
  }
  return hash64(shape) >> 1;
}

}  // namespace sluice::flow
