#include "sluice/rpc/json_canonical.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "sluice/base/text.hpp"

namespace sluice::rpc {

namespace {

constexpr std::size_t kShownName = 64;

bool blank(char c) noexcept { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

// The text is JSON: what the grammar promises is not asked again.
class Writer {
 public:
  Writer(std::string_view text, std::string& out) : text_(text), out_(out) {
    out_.clear();
    out_.reserve(text.size());
    open_.reserve(8);  // of most requests
    members_.reserve(16);
  }

  // False: a name stands twice; the later one is at at(), and is what name() says.
  bool run() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (blank(c)) {
        ++at_;
      } else if (c == '"') {
        name_next_ ? begin_member() : string();
      } else if (c == '{' || c == '[') {
        open_.push_back({c == '{', false, out_.size() + 1, members_.size()});
        put(c);
        name_next_ = c == '{';
      } else if (c == '}' || c == ']') {
        if (open_.back().object && !close_object()) return false;
        open_.pop_back();
        put(c);
        name_next_ = false;
      } else if (c == ',') {
        if (open_.back().object) members_.back().end = out_.size();
        put(c);
        name_next_ = open_.back().object;
      } else {
        scalar();
      }
    }
    return true;
  }
  std::size_t at() const { return at_; }
  const std::string& name() const { return name_; }

 private:
  // In out_: from the name's opening quote to the end of the value.
  struct Member {
    std::size_t begin, name_end, end;
    std::size_t source;  // of the name, in the text
  };
  struct Open {
    bool object;
    bool unsorted;
    std::size_t begin;  // behind the bracket, in out_
    std::size_t first;  // of its members
  };

  void put(char c) {
    out_ += c;
    ++at_;
  }
  std::string_view name_of(const Member& m) const {
    return std::string_view(out_).substr(m.begin + 1, m.name_end - m.begin - 2);  // within its quotes
  }

  void begin_member() {
    name_next_ = false;
    const Member member{out_.size(), 0, 0, at_};
    string();
    members_.push_back(member);
    members_.back().name_end = out_.size();
    auto& object = open_.back();
    if (members_.size() - object.first > 1)
      object.unsorted |= name_of(members_[members_.size() - 2]) >= name_of(members_.back());
    // string() has moved past the name; run() must not read it as another one.
    while (blank(text_[at_])) ++at_;
    put(':');
    while (blank(text_[at_])) ++at_;
  }

  bool close_object() {
    const Open object = open_.back();
    const auto first = members_.begin() + static_cast<std::ptrdiff_t>(object.first);
    if (first != members_.end()) members_.back().end = out_.size();
    if (object.unsorted && !sort(object, first)) return false;
    members_.erase(first, members_.end());
    return true;
  }

  bool sort(const Open& object, std::vector<Member>::iterator first) {
    std::sort(first, members_.end(), [this](const Member& a, const Member& b) {
      const auto order = name_of(a).compare(name_of(b));
      return order != 0 ? order < 0 : a.source < b.source;
    });
    scratch_.clear();
    for (auto m = first; m != members_.end(); ++m) {
      if (m != first && name_of(*m) == name_of(*std::prev(m))) {
        at_ = m->source;
        name_ = name_of(*m);
        return false;
      }
      if (m != first) scratch_ += ',';
      scratch_.append(out_, m->begin, m->end - m->begin);
    }
    out_.replace(object.begin, std::string::npos, scratch_);
    return true;
  }

  void scalar() {
    const std::size_t begin = at_;
    while (at_ < text_.size() && !blank(text_[at_]) && text_[at_] != ',' && text_[at_] != ']' &&
           text_[at_] != '}')
      ++at_;
    out_.append(text_, begin, at_ - begin);
  }

  void string() {
    put('"');
    for (;;) {
      const std::size_t begin = at_;
      while (text_[at_] != '"' && text_[at_] != '\\') ++at_;
      out_.append(text_, begin, at_ - begin);
      if (text_[at_] == '"') break;
      escape();
    }
    put('"');
  }

  void escape() {
    const char c = text_[at_ + 1];
    at_ += 2;
    if (c == 'u') return character(code_point());
    if (c == '/') {
      out_ += '/';
    } else {
      out_ += '\\';
      out_ += c;
    }
  }

  std::uint32_t unit() {
    std::uint32_t value = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char h = text_[at_];
      value = value * 16 + static_cast<std::uint32_t>(h <= '9' ? h - '0' : (h | 0x20) - 'a' + 10);
    }
    return value;
  }
  std::uint32_t code_point() {
    const std::uint32_t first = unit();
    if (first < 0xD800 || first > 0xDFFF) return first;
    at_ += 2;  // of the other half
    return 0x10000 + ((first - 0xD800) << 10) + (unit() - 0xDC00);
  }
  // As it would stand in the shortest text. Source: RFC 8785, 3.2.2.2.
  void character(std::uint32_t c) {
    constexpr std::string_view kShort = "btnvfr";  // 8 to 13; there is no \v
    const auto byte = [this](std::uint32_t b) { out_ += static_cast<char>(b); };
    if (c == '"' || c == '\\') {
      out_ += '\\';
      byte(c);
    } else if (c >= 8 && c <= 13 && c != 11) {
      out_ += '\\';
      out_ += kShort[c - 8];
    } else if (c < 0x20) {
      out_ += "\\u00";
      out_ += "01"[c >> 4];
      out_ += "0123456789abcdef"[c & 15];
    } else if (c < 0x80) {
      byte(c);
    } else if (c < 0x800) {
      byte(0xC0 | c >> 6);
      byte(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
      byte(0xE0 | c >> 12);
      byte(0x80 | (c >> 6 & 0x3F));
      byte(0x80 | (c & 0x3F));
    } else {
      byte(0xF0 | c >> 18);
      byte(0x80 | (c >> 12 & 0x3F));
      byte(0x80 | (c >> 6 & 0x3F));
      byte(0x80 | (c & 0x3F));
    }
  }

  std::string_view text_;
  std::string& out_;
  std::size_t at_ = 0;
  bool name_next_ = false;
  std::vector<Open> open_;        // bounded by the depth that check_json() lets pass
  std::vector<Member> members_;   // of all open objects
  std::string scratch_, name_;
};

}  // namespace

std::optional<JsonProblem> canonical_json(std::string_view text, std::string& out) {
  Writer writer(text, out);
  if (writer.run()) return std::nullopt;
  const std::string& name = writer.name();
  const std::string shown(beginning_of(name, kShownName));
  return problem_at(text, writer.at(),
                    "the name \"" + shown + (shown.size() < name.size() ? "…" : "") + "\" stands twice in one object");
}

}  // namespace sluice::rpc
