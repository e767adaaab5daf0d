// A strict, streaming reader of RFC 4180 files: one record in memory at a time, whatever the size
// of the file. Text is UTF-8, lines end in LF or CRLF; the first record must name exactly the expected columns.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sluice/base/failure.hpp"

namespace sluice::voucher {

/// Fills `out` with up to `size` bytes; 0 at the end.
using ByteSource = std::function<Result<std::size_t>(char* out, std::size_t size)>;

struct CsvLimits {
  std::size_t max_field = 4096;  ///< bytes; a longer field is an error, not an allocation
};

class CsvReader {
 public:
  /// `file` is what messages call it.
  CsvReader(ByteSource source, std::string file, std::vector<std::string> columns,
            CsvLimits limits = {});

  /// The next record, or false at the end. The views live until the next call. Fails
  /// invalid_argument (malformed_csv), naming file, line, column, what was expected, what was
  /// found and what to do; the reader then stays failed.
  Result<bool> next(std::vector<std::string_view>& fields);

  /// A failure about column `column` of the record next() gave last.
  Failure complain(std::size_t column, std::string_view expected, std::string_view hint) const;
  /// The same, reading a whole number within [minimum, maximum].
  Result<std::int64_t> integer(std::size_t column, std::int64_t minimum,
                               std::int64_t maximum) const;

  std::uint64_t line() const noexcept { return record_line_; }
  std::uint64_t bytes_read() const noexcept { return consumed_; }

 private:
  Result<bool> read_next(std::vector<std::string_view>& fields);
  Result<bool> read_record();
  Status read_header();
  Result<int> peek();
  Status read_field(bool& last);
  Status read_quoted();
  Status check_text() const;
  Status append(char c);
  Status end_of_line(int c);
  std::unexpected<Failure> malformed(std::string_view expected, std::string_view got,
                                     std::string_view hint) const;
  std::string column_name(std::size_t column) const;

  ByteSource source_;
  std::string file_;
  std::vector<std::string> columns_;
  CsvLimits limits_;
  std::vector<char> buffer_;
  std::size_t at_ = 0, filled_ = 0;
  std::uint64_t consumed_ = 0, line_ = 1, record_line_ = 0;
  bool header_read_ = false;
  std::optional<Failure> failed_;   // what next() says from then on
  std::string text_;                // the record's fields, back to back
  std::vector<std::size_t> ends_;   // where each field ends in text_
};

}  // namespace sluice::voucher
