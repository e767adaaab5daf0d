// Named fault sites, armed per run. A site that is not armed costs one look-up and never fires.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "sim/random.hpp"

namespace sluice::sim {

class Faults {
 public:
  explicit Faults(SimRandom random) noexcept : random_(random) {}

  /// From now on the site fires once in `in` visits on average, at most `times` times.
  void arm(std::string_view site, std::uint64_t in, std::uint64_t times = UINT64_MAX) {
    sites_.insert_or_assign(std::string(site), Site{in, times, 0});
  }
  void disarm(std::string_view site) {
    if (const auto found = sites_.find(site); found != sites_.end()) found->second.left = 0;
  }
  void disarm_all() {
    for (auto& [name, site] : sites_) site.left = 0;
  }
  /// Visits the site; true: the fault happens now.
  bool fires(std::string_view site) {
    const auto found = sites_.find(site);
    if (found == sites_.end() || found->second.left == 0) return false;
    if (!random_.one_in(found->second.in)) return false;
    --found->second.left;
    ++found->second.fired;
    return true;
  }
  std::uint64_t fired(std::string_view site) const {
    const auto found = sites_.find(site);
    return found == sites_.end() ? 0 : found->second.fired;
  }

 private:
  struct Site {
    std::uint64_t in = 1;
    std::uint64_t left = 0;
    std::uint64_t fired = 0;
  };
  SimRandom random_;
  std::map<std::string, Site, std::less<>> sites_;
};

}  // namespace sluice::sim
