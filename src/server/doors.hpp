// All doors as one component, so that they drain and close side by side, in one grace.
#pragma once
#include <vector>

#include "sluice/base/lifecycle.hpp"

namespace sluice::server {

class Doors final : public Component {
 public:
  /// In starting order; the door must outlive this.
  void add(Component& door) { doors_.push_back(&door); }
  std::string_view name() const noexcept override { return "doors"; }
  Status start() override {
    for (std::size_t i = 0; i < doors_.size(); ++i) {
      const Status started = doors_[i]->start();
      if (started) continue;
      while (i-- > 0) doors_[i]->stop();
      return started;
    }
    return {};
  }
  void drain() noexcept override {
    for (auto* door : doors_) door->drain();
  }
  bool drained() noexcept override {
    for (auto* door : doors_)
      if (!door->drained()) return false;
    return true;
  }
  void cancel() noexcept override {
    for (auto* door : doors_) door->cancel();
  }
  /// In reverse: the lanes of the first one serve the others.
  void stop() noexcept override {
    for (std::size_t i = doors_.size(); i-- > 0;) doors_[i]->stop();
  }

 private:
  std::vector<Component*> doors_;
};

}  // namespace sluice::server
