// Replaces the global operator new of the program that benches are linked into; the price is one
// increment of a thread's own counter per allocation.
#include "bench/allocations.hpp"

#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLUICE_COUNT_ALLOCATIONS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLUICE_COUNT_ALLOCATIONS 0
#endif
#endif
#ifndef SLUICE_COUNT_ALLOCATIONS
#define SLUICE_COUNT_ALLOCATIONS 1
#endif

namespace sluice::bench {
namespace {

constinit thread_local std::uint64_t count = 0;

}  // namespace

std::uint64_t allocations() noexcept { return count; }

#if SLUICE_COUNT_ALLOCATIONS
void* counted(std::size_t size) {
  ++count;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
#endif

}  // namespace sluice::bench

#if SLUICE_COUNT_ALLOCATIONS
void* operator new(std::size_t size) { return sluice::bench::counted(size); }
void* operator new[](std::size_t size) { return sluice::bench::counted(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
#endif
