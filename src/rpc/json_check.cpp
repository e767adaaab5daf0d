#include "sluice/rpc/json_check.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <system_error>
#include <vector>

namespace sluice::rpc {

namespace {

// Whether a number of the grammar rounds to infinity. Too small is not too large: it reads as zero.
bool past_a_double(std::string_view number) {
  double value = 0;
  const char* const end = number.data() + number.size();
  if (std::from_chars(number.data(), end, value).ec != std::errc::result_out_of_range)
    return false;
  // Out of range says not on which side: the power of ten of the first digit that counts does.
  if (number.front() == '-') number.remove_prefix(1);
  const auto mantissa = number.substr(0, number.find_first_of("eE"));
  const auto point = static_cast<std::int64_t>(std::min(mantissa.find('.'), mantissa.size()));
  const auto first = mantissa.find_first_not_of("0.");
  if (first == std::string_view::npos) return false;
  std::int64_t exponent = 0;
  if (mantissa.size() < number.size()) {
    auto digits = number.substr(mantissa.size() + 1);
    const bool negative = digits.front() == '-';
    if (negative || digits.front() == '+') digits.remove_prefix(1);
    if (std::from_chars(digits.data(), end, exponent).ec != std::errc()) return !negative;
    if (negative) exponent = -exponent;
  }
  return exponent > static_cast<std::int64_t>(first) - point;
}

class Checker {
 public:
  Checker(std::string_view text, std::size_t max_depth) : text_(text), max_depth_(max_depth) {}

  // One bit per open bracket: true for an object. Bounded by max_depth.
  bool run() {
    skip();
    for (;;) {
      if (!value()) return false;
      if (opened_) continue;
      for (;;) {  // after a value
        skip();
        if (open_.empty()) return at_ == text_.size() || say("expected the end of the text");
        const bool object = open_.back();
        if (take(object ? '}' : ']')) {
          open_.pop_back();
          continue;
        }
        if (!take(',')) return say(object ? "expected ',' or '}'" : "expected ',' or ']'");
        skip();
        if (object && !name()) return false;
        break;
      }
    }
  }
  std::size_t at() const { return at_; }
  const char* what() const { return what_; }
  bool too_deep() const { return too_deep_; }

 private:
  bool say(const char* what) {
    what_ = what;
    return false;
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void skip() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
      ++at_;
  }

  bool value() {
    opened_ = false;
    switch (peek()) {
      case '{':
      case '[':
        return open(peek() == '{');
      case '"':
        return string();
      case 't':
        return word("true");
      case 'f':
        return word("false");
      case 'n':
        return word("null");
      default:
        return number();
    }
  }
  bool open(bool object) {
    if (open_.size() >= max_depth_) {
      too_deep_ = true;
      return say("nested too deep");
    }
    ++at_;
    skip();
    if (take(object ? '}' : ']')) return true;
    open_.push_back(object);
    opened_ = true;
    return !object || name();
  }
  bool name() {
    if (peek() != '"') return say("expected a name in double quotes");
    if (!string()) return false;
    skip();
    if (!take(':')) return say("expected ':' after a name");
    skip();
    return true;
  }
  bool word(std::string_view expected) {
    if (!text_.substr(at_).starts_with(expected)) return say("expected a value");
    at_ += expected.size();
    return true;
  }
  static bool digit(char c) { return c >= '0' && c <= '9'; }
  bool digits() {
    if (!digit(peek())) return say("expected a digit");
    while (digit(peek())) ++at_;
    return true;
  }
  bool number() {
    if (peek() != '-' && !digit(peek())) return say("expected a value");
    const std::size_t begin = at_;
    take('-');
    if (!take('0') && !digits()) return false;
    if (take('.') && !digits()) return false;
    const bool exponent = take('e') || take('E');
    if (exponent) {
      if (!take('+')) take('-');
      if (!digits()) return false;
    }
    // No fewer digits than this reach past a double without an exponent.
    if ((exponent || at_ - begin > 300) && past_a_double(text_.substr(begin, at_ - begin))) {
      at_ = begin;
      return say("a number past the range of a double (about 1.8e308)");
    }
    return true;
  }
  bool string() {
    ++at_;
    while (at_ < text_.size()) {
      const auto c = static_cast<unsigned char>(text_[at_]);
      if (c == '"') {
        ++at_;
        return true;
      }
      if (c < 0x20) return say("control character in a string");
      if (c == '\\' ? !escape() : c < 0x80 ? (++at_, false) : !utf8(c)) return false;
    }
    return say("a string without its closing quote");
  }
  bool escape() {
    ++at_;
    const char c = peek();
    if (c != 'u') {
      if (c == '\0' || std::string_view("\"\\/bfnrt").find(c) == std::string_view::npos)
        return say("unknown escape in a string");
      ++at_;
      return true;
    }
    const std::size_t begin = at_ - 1;
    const int first = unit();
    if (first < 0) return false;
    if (first < 0xD800 || first > 0xDFFF) return true;
    if (first < 0xDC00 && text_.substr(at_).starts_with("\\u")) {
      ++at_;
      const int second = unit();
      if (second < 0) return false;
      if (second >= 0xDC00 && second <= 0xDFFF) return true;
    }
    at_ = begin;
    return say("half a surrogate pair after \\u; write both halves");
  }
  // The 'u' and its four digits; negative after say().
  int unit() {
    ++at_;
    int value = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char h = peek();
      const int nibble = digit(h)               ? h - '0'
                         : h >= 'a' && h <= 'f' ? h - 'a' + 10
                         : h >= 'A' && h <= 'F' ? h - 'A' + 10
                                                : -1;
      if (nibble < 0) {
        say("expected four hexadecimal digits after \\u");
        return -1;
      }
      value = value * 16 + nibble;
    }
    return value;
  }
  // Shortest forms only, no surrogates, at most U+10FFFF. Source: RFC 3629, section 4.
  bool utf8(unsigned char lead) {
    const std::size_t size = lead < 0xC2   ? 0
                             : lead < 0xE0 ? 2
                             : lead < 0xF0 ? 3
                             : lead < 0xF5 ? 4
                                           : 0;
    if (size == 0 || at_ + size > text_.size()) return say("invalid UTF-8 in a string");
    const auto byte = [this](std::size_t i) { return static_cast<unsigned char>(text_[at_ + i]); };
    for (std::size_t i = 1; i < size; ++i)
      if ((byte(i) & 0xC0) != 0x80) return say("invalid UTF-8 in a string");
    if ((lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xED && byte(1) > 0x9F) ||
        (lead == 0xF0 && byte(1) < 0x90) || (lead == 0xF4 && byte(1) > 0x8F))
      return say("invalid UTF-8 in a string");
    at_ += size;
    return true;
  }

  std::string_view text_;
  std::size_t max_depth_;
  std::size_t at_ = 0;
  std::vector<bool> open_;
  bool opened_ = false;  // the last value opened a bracket that is not closed
  bool too_deep_ = false;
  const char* what_ = "";
};

}  // namespace

std::string JsonProblem::to_string() const {
  return "line " + std::to_string(line) + ", column " + std::to_string(column) + ": " + what;
}

JsonProblem problem_at(std::string_view text, std::size_t offset, std::string what) {
  JsonProblem problem;
  problem.offset = offset;
  const auto before = text.substr(0, offset);
  problem.line = 1 + static_cast<std::size_t>(std::ranges::count(before, '\n'));
  const auto newline = before.rfind('\n');
  problem.column = newline == std::string_view::npos ? before.size() + 1 : before.size() - newline;
  problem.what = std::move(what);
  return problem;
}

std::optional<JsonProblem> check_json(std::string_view text, std::size_t max_depth) {
  Checker checker(text, max_depth);
  if (checker.run()) return std::nullopt;
  JsonProblem problem = problem_at(text, checker.at(), checker.what());
  problem.too_deep = checker.too_deep();
  return problem;
}

}  // namespace sluice::rpc
