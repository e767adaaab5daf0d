#include "apps/voucher/csv.hpp"

#include <charconv>

#include "fmt/format.h"
#include "sluice/base/text.hpp"

namespace sluice::voucher {
namespace {

constexpr std::size_t kBuffer = 64 << 10;
constexpr int kEnd = -1;
constexpr std::size_t kShownHeader = 200;
constexpr std::size_t kHeaderFieldsMax = 1000;  // read of a first line, which may be any file's

// What a person sees of a byte or a field: short and printable.
std::string shown(std::string_view text, std::size_t limit = 40) {
  std::string out = "\"";
  const std::string_view piece = beginning_of(text, limit);
  const bool good = utf8_until(piece) == piece.size();
  for (const char c : piece) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F || (byte >= 0x80 && !good))
      out += fmt::format("\\x{:02x}", byte);
    else
      out.push_back(c);
  }
  out += text.size() > limit ? "…\"" : "\"";
  return out;
}

}  // namespace

CsvReader::CsvReader(ByteSource source, std::string file, std::vector<std::string> columns,
                     CsvLimits limits)
    : source_(std::move(source)),
      file_(std::move(file)),
      columns_(std::move(columns)),
      limits_(limits),
      buffer_(kBuffer) {}

std::string CsvReader::column_name(std::size_t column) const {
  if (column < columns_.size()) return fmt::format("{} ({})", column + 1, columns_[column]);
  return fmt::format("{}", column + 1);
}

std::unexpected<Failure> CsvReader::malformed(std::string_view expected, std::string_view got,
                                              std::string_view hint) const {
  return fail(FailureKind::invalid_argument, "malformed_csv",
              fmt::format("{}: line {}, column {}: expected {}, got {}; {}", file_, line_,
                          column_name(ends_.size()), expected, got, hint));
}

Failure CsvReader::complain(std::size_t column, std::string_view expected,
                            std::string_view hint) const {
  const std::size_t begin = column == 0 ? 0 : ends_[column - 1];
  const std::string_view got = std::string_view(text_).substr(begin, ends_[column] - begin);
  return Failure(FailureKind::invalid_argument, "malformed_csv",
                 fmt::format("{}: line {}, column {}: expected {}, got {}; {}", file_,
                             record_line_, column_name(column), expected, shown(got), hint));
}

Result<std::int64_t> CsvReader::integer(std::size_t column, std::int64_t minimum,
                                        std::int64_t maximum) const {
  const std::size_t begin = column == 0 ? 0 : ends_[column - 1];
  const std::string_view text = std::string_view(text_).substr(begin, ends_[column] - begin);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty() ||
      value < minimum || value > maximum)
    return fail(complain(column, fmt::format("a whole number from {} to {}", minimum, maximum),
                         "correct the value (no signs, spaces or separators)"));
  return value;
}

Result<int> CsvReader::peek() {
  if (at_ == filled_) {
    SLUICE_ASSIGN(filled_, source_(buffer_.data(), buffer_.size()));
    at_ = 0;
    if (filled_ == 0) return kEnd;
  }
  return static_cast<unsigned char>(buffer_[at_]);
}

Status CsvReader::append(char c) {
  const std::size_t begin = ends_.empty() ? 0 : ends_.back();
  if (text_.size() - begin >= limits_.max_field)
    return malformed(fmt::format("at most {} bytes in a field", limits_.max_field), "more",
                     "look for a quote that is never closed");
  if (c == '\0')
    return malformed("text", "a NUL byte", "save the file as UTF-8 text and import it again");
  text_.push_back(c);
  return {};
}

// After the opening quote, up to and including the closing one.
Status CsvReader::read_quoted() {
  for (;;) {
    SLUICE_ASSIGN(const int c, peek());
    if (c == kEnd)
      return malformed("a closing quote", "the end of the file", "close the quoted field");
    ++at_, ++consumed_;
    if (c == '"') {
      SLUICE_ASSIGN(const int after, peek());
      if (after != '"') return {};
      ++at_, ++consumed_;  // a doubled quote stands for one
    }
    SLUICE_TRY(append(static_cast<char>(c)));
    if (c == '\n') ++line_;
  }
}

Status CsvReader::end_of_line(int c) {
  ++at_, ++consumed_;
  if (c == '\r') {
    SLUICE_ASSIGN(const int next, peek());
    if (next != '\n')
      return malformed("a line feed after a carriage return", "something else",
                       "end lines with LF or CRLF");
    ++at_, ++consumed_;
  }
  return {};
}

Status CsvReader::read_field(bool& last) {
  last = false;
  SLUICE_ASSIGN(int c, peek());
  const bool quoted = c == '"';
  if (quoted) {
    ++at_, ++consumed_;
    SLUICE_TRY(read_quoted());
  }
  for (;;) {
    SLUICE_ASSIGN(c, peek());
    if (c == ',' || c == '\n' || c == '\r' || c == kEnd) break;
    const char byte = static_cast<char>(c);
    if (quoted)
      return malformed("a comma or the end of the line after the closing quote",
                       shown({&byte, 1}), "double quotes inside a quoted field");
    if (c == '"')
      return malformed("no quote inside an unquoted field", "a quote",
                       "put the whole field in quotes and double the quotes inside it");
    SLUICE_TRY(append(byte));
    ++at_, ++consumed_;
  }
  SLUICE_TRY(check_text());
  if (c == ',') {
    ++at_, ++consumed_;
  } else {
    last = true;
    if (c != kEnd) SLUICE_TRY(end_of_line(c));
  }
  ends_.push_back(text_.size());
  return {};
}

// What is stored is told as JSON, which is UTF-8.
Status CsvReader::check_text() const {
  const std::size_t begin = ends_.empty() ? 0 : ends_.back();
  const std::string_view field = std::string_view(text_).substr(begin);
  if (utf8_until(field) == field.size()) return {};
  return malformed("text in UTF-8", shown(field), "save the file as UTF-8 and import it again");
}

Result<bool> CsvReader::read_record() {
  text_.clear();
  ends_.clear();
  SLUICE_ASSIGN(const int first, peek());
  if (first == kEnd) return false;
  record_line_ = line_;
  for (bool last = false; !last;) {
    if (ends_.size() > (header_read_ ? columns_.size() : kHeaderFieldsMax)) break;
    SLUICE_TRY(read_field(last));
  }
  if (ends_.size() != columns_.size() && header_read_)
    return fail(FailureKind::invalid_argument, "malformed_csv",
                fmt::format("{}: line {}, column {}: expected {} fields, got {}; {}", file_,
                            record_line_, ends_.size(), columns_.size(),
                            ends_.size() > columns_.size() ? "more" : std::to_string(ends_.size()),
                            "every line has the columns of the first; quote fields with commas"));
  ++line_;
  return true;
}

Status CsvReader::read_header() {
  constexpr std::string_view kMark = "\xEF\xBB\xBF";  // some editors put it before UTF-8
  SLUICE_ASSIGN(const bool any, read_record());
  if (!any)
    return malformed("a first line that names the columns", "an empty file",
                     "see the columns in docs/how-to/distribute-vouchers.md");
  std::vector<std::string> got;
  std::size_t begin = 0;
  for (const std::size_t end : ends_) {
    got.push_back(text_.substr(begin, end - begin));
    begin = end;
  }
  if (got.front().starts_with(kMark)) got.front().erase(0, kMark.size());
  if (got == columns_) return {};
  return fail(FailureKind::invalid_argument, "malformed_csv",
              fmt::format("{}: line 1: expected the columns {}, got {}; name them in this order on the first line",
                          file_, fmt::join(columns_, ","), shown(fmt::format("{}", fmt::join(got, ",")), kShownHeader)));
}

Result<bool> CsvReader::next(std::vector<std::string_view>& fields) {
  fields.clear();
  // What follows a mistake cannot be trusted to begin where a record begins.
  if (failed_) return fail(*failed_);
  auto more = read_next(fields);
  if (!more) failed_ = more.error();
  return more;
}

Result<bool> CsvReader::read_next(std::vector<std::string_view>& fields) {
  if (!header_read_) {
    SLUICE_TRY(read_header());
    header_read_ = true;
  }
  SLUICE_ASSIGN(const bool any, read_record());
  if (!any) return false;
  std::size_t begin = 0;
  for (const std::size_t end : ends_) {
    fields.push_back(std::string_view(text_).substr(begin, end - begin));
    begin = end;
  }
  return true;
}

}  // namespace sluice::voucher
