// What happened, folded into one number: two runs of a seed took the same way if and only if
// (but for collisions) their hashes agree. Optionally prints each entry, to compare two runs.
#pragma once
#include <cstdint>
#include <cstdio>
#include <string_view>

#include "sluice/base/bytes.hpp"

namespace sluice::sim {

class History {
 public:
  void note(std::string_view what, std::uint64_t a = 0, std::uint64_t b = 0) noexcept {
    const std::uint64_t numbers[3] = {hash_, a, b};
    hash_ = hash64(what, hash64({reinterpret_cast<const char*>(numbers), sizeof numbers}));
    ++entries_;
    if (print_)
      std::fprintf(stderr, "%8llu %.*s %llu %llu\n", static_cast<unsigned long long>(entries_),
                   static_cast<int>(what.size()), what.data(), static_cast<unsigned long long>(a),
                   static_cast<unsigned long long>(b));
  }
  std::uint64_t hash() const noexcept { return hash_; }
  std::uint64_t entries() const noexcept { return entries_; }
  void set_print(bool print) noexcept { print_ = print; }

 private:
  std::uint64_t hash_ = 0;
  std::uint64_t entries_ = 0;
  bool print_ = false;
};

}  // namespace sluice::sim
