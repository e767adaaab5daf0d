#include "sluice/base/spelling.hpp"

#include <algorithm>
#include <vector>

namespace sluice {

namespace {

std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

constexpr std::size_t kFar = 4;

}  // namespace

std::string nearest_word(std::string_view word, std::span<const std::string> words) {
  std::string found;
  std::size_t best = kFar;
  for (const auto& one : words)
    if (const auto far = distance(word, one); far < best && far < word.size()) best = far, found = one;
  return found;
}

}  // namespace sluice
