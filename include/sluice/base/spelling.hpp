// What a misspelt word was meant to be.
#pragma once
#include <span>
#include <string>
#include <string_view>

namespace sluice {

/// The one of `words` that takes the fewest letters changed, added or taken away, at most three and
/// not all of them; empty: none is near.
std::string nearest_word(std::string_view word, std::span<const std::string> words);

}  // namespace sluice
