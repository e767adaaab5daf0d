// To be included before toml++. That library asserts some of what it should refuse (`[.a]`), and an
// assertion would end a server over a typing mistake: here it is an exception, whatever the build.
#pragma once
#include <algorithm>
#include <exception>
#include <string_view>
#include <vector>

#if defined(TOML_ASSERT) || defined(TOML_ASSERT_ASSUME)
#error "include sluice/base/toml_assert.hpp before toml++"
#endif
// With it toml++ would take what it asserts for granted.
#undef NDEBUG
#define TOML_ASSERT(expr) (static_cast<bool>(expr) ? void() : throw ::sluice::TomlAssertion())

namespace sluice {

struct TomlAssertion : std::exception {
  const char* what() const noexcept override {
    return "a table or key begins with a character that cannot stand there; expected a letter, a "
           "digit, '-', '_' or a quote";
  }
};

/// The line, from 1, that makes `parse` throw TomlAssertion: the last of the fewest lines that do.
template <class Parse>
unsigned line_of_assertion(std::string_view text, Parse&& parse) {
  std::vector<std::size_t> ends;
  for (std::size_t at = 0; at < text.size(); ++at)
    if (text[at] == '\n') ends.push_back(at);
  const auto whole = [&](std::size_t end) {
    try {
      parse(text.substr(0, end));
    } catch (const TomlAssertion&) {
      return false;
    } catch (const std::exception&) {
    }
    return true;
  };
  return static_cast<unsigned>(std::ranges::partition_point(ends, whole) - ends.begin()) + 1;
}

}  // namespace sluice
