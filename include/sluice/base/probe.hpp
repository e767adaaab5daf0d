// Probes mark rare branches that a simulation campaign must have reached at least once: a branch
// no seed ever takes is a branch nobody tested. Compiled in with SLUICE_PROBES, which the rooms that
// have probes are built with where there are tests; otherwise they are nothing at all.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace sluice {

/// One marked place; registers itself when it is first reached. Thread-safe.
class Probe {
 public:
  explicit Probe(const char* name) noexcept;
  void hit() noexcept { hits_.fetch_add(1, std::memory_order_relaxed); }

 private:
  friend std::map<std::string, std::uint64_t> probe_hits();
  const char* name_;
  std::atomic<std::uint64_t> hits_{0};
  Probe* next_ = nullptr;
};

/// How often each place was reached so far in this process; places never reached are absent.
std::map<std::string, std::uint64_t> probe_hits();

#ifdef SLUICE_PROBES
#define SLUICE_PROBE(name)                        \
  do {                                            \
    static ::sluice::Probe sluice_probe_at(name); \
    sluice_probe_at.hit();                        \
  } while (false)
#else
#define SLUICE_PROBE(name) \
  do {                     \
  } while (false)
#endif

}  // namespace sluice
