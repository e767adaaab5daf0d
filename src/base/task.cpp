// The recycling allocator of coroutine frames.
#include "sluice/base/task.hpp"

#include <array>
#include <new>

namespace sluice {
namespace {

constexpr std::size_t kGranule = 64;
constexpr std::size_t kClasses = 32;        // frames up to 2 KiB are recycled
constexpr std::size_t kKeptPerClass = 256;  // bound on idle memory: 256 * 2 KiB * 32 / 2 = 8 MiB

struct FreeLists {
  struct Node {
    Node* next;
  };
  std::array<Node*, kClasses> heads{};
  std::array<std::size_t, kClasses> counts{};
  ~FreeLists() {
    for (Node* node : heads)
      while (node != nullptr) {
        Node* following = node->next;
        ::operator delete(node);
        node = following;
      }
  }
};
thread_local FreeLists free_lists;

}  // namespace

void* allocate_frame(std::size_t size) {
  const std::size_t index = (size + kGranule - 1) / kGranule;
  if (index >= kClasses) return ::operator new(size);
  if (auto*& head = free_lists.heads[index]; head != nullptr) {
    void* const frame = head;
    head = head->next;
    --free_lists.counts[index];
    return frame;
  }
  return ::operator new(index * kGranule);
}

void free_frame(void* frame, std::size_t size) noexcept {
  const std::size_t index = (size + kGranule - 1) / kGranule;
  if (index >= kClasses || free_lists.counts[index] >= kKeptPerClass) {
    ::operator delete(frame);
    return;
  }
  auto* const node = static_cast<FreeLists::Node*>(frame);
  node->next = free_lists.heads[index];
  free_lists.heads[index] = node;
  ++free_lists.counts[index];
}

}  // namespace sluice
