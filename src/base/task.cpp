// The recycling allocator of coroutine frames, and hops over the lane when tasks nest too deeply.
#include "sluice/base/task.hpp"

#include <array>
#include <memory>
#include <new>

namespace sluice {
namespace {

// A recycled frame would hide a use after free from the address sanitizer.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kRecycle = false;
#elif defined(__has_feature)
constexpr bool kRecycle = !__has_feature(address_sanitizer);
#else
constexpr bool kRecycle = true;
#endif

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
  if (!kRecycle || index >= kClasses) return ::operator new(size);
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
  if (!kRecycle || index >= kClasses || free_lists.counts[index] >= kKeptPerClass) {
    ::operator delete(frame);
    return;
  }
  auto* const node = static_cast<FreeLists::Node*>(frame);
  node->next = free_lists.heads[index];
  free_lists.heads[index] = node;
  ++free_lists.counts[index];
}

namespace detail {

// Lives in the queued callable; promise and hop know each other until one of them goes.
struct Hop {
  PromiseBase* promise;
  std::coroutine_handle<> target;
  Hop(PromiseBase& p, std::coroutine_handle<> t) noexcept : promise(&p), target(t) {
    promise->hop = this;
  }
  Hop(const Hop&) = delete;
  Hop& operator=(const Hop&) = delete;
  ~Hop() {
    if (promise != nullptr) promise->hop = nullptr;
  }
};

void PromiseBase::resume_later(std::coroutine_handle<> target) {
  context->lane->post([hop = std::make_unique<Hop>(*this, target)]() mutable {
    const bool alive = hop->promise != nullptr;
    const std::coroutine_handle<> next = hop->target;
    hop.reset();
    if (alive) next.resume();
  });
}

void PromiseBase::forget_hop() noexcept { hop->promise = nullptr; }

}  // namespace detail
}  // namespace sluice
