#include "sluice/base/probe.hpp"

namespace sluice {
namespace {
constinit std::atomic<Probe*> first_probe{nullptr};
}

Probe::Probe(const char* name) noexcept : name_(name) {
  next_ = first_probe.load(std::memory_order_relaxed);
  while (!first_probe.compare_exchange_weak(next_, this, std::memory_order_release,
                                            std::memory_order_relaxed)) {
  }
}

std::map<std::string, std::uint64_t> probe_hits() {
  std::map<std::string, std::uint64_t> hits;
  for (const Probe* probe = first_probe.load(std::memory_order_acquire); probe != nullptr;
       probe = probe->next_)
    hits[probe->name_] += probe->hits_.load(std::memory_order_relaxed);
  return hits;
}

}  // namespace sluice
