// UTF-8 as bytes: cut and checked, never decoded.
#pragma once
#include <cstddef>
#include <string_view>

namespace sluice {

/// The first bytes of a text, at most `limit`, ending between two characters: what is UTF-8 stays so.
std::string_view beginning_of(std::string_view text, std::size_t limit) noexcept;

/// How many bytes are UTF-8 before the first that is not; all of them: it is.
std::size_t utf8_until(std::string_view text) noexcept;

}  // namespace sluice
