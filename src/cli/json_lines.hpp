// A file of commands, one JSON object a line, as the source of a stream: checked whole before the
// first is sent, and read again from where a stream goes on.
#pragma once
#include <fstream>
#include <string>
#include <vector>

#include "sluice/base/bytes.hpp"
#include "sluice/transport/grpc_stream_client.hpp"

namespace sluice::cli {

struct JsonLinesOptions {
  std::string command;   ///< each line is this command's payload; empty: each line names its own
  std::string order_by;  ///< field of the payload whose value is the ordering key; empty: none
  bool any_order = false;  ///< each line is alone: none waits for another
};

/// One thread. The file may not change while it is sent.
class JsonLines final : public transport::StreamSource {
 public:
  /// Reads all of it. Fails invalid_argument, naming file, line and what was expected there.
  static Result<std::unique_ptr<JsonLines>> open(const std::string& path, JsonLinesOptions options);

  Result<std::optional<transport::StreamMessage>> at(std::uint64_t sequence) override;
  std::uint64_t count() const noexcept { return count_; }
  /// Of the content and the command, whatever the order is: the same file is never two streams, and no
  /// other file can be made to be this one. SHA-256, 64 hexadecimal digits.
  std::string identity() const;
  std::uint64_t line() const noexcept { return line_; }  ///< of the message that at() gave last
  /// In the file, from 1: empty lines are no messages.
  std::uint64_t line_of(std::uint64_t sequence);

 private:
  struct Place {
    std::streamoff offset = 0;
    std::uint64_t line = 0;  // lines before it
  };
  JsonLines(std::string path, JsonLinesOptions options) : path_(std::move(path)), options_(std::move(options)) {}
  Status read_all();
  void go_to(std::uint64_t sequence);
  /// The next line that is not empty, in text_ and line_; false at the end.
  Result<bool> next();
  Result<transport::StreamMessage> parse() const;
  Failure bad(std::string_view code, const std::string& what) const;

  std::string path_;
  JsonLinesOptions options_;
  std::ifstream file_;
  std::string text_;
  std::uint64_t line_ = 0;
  std::uint64_t sequence_ = 0;  // of text_
  std::uint64_t count_ = 0;
  Digest digest_{};
  std::vector<Place> places_;  // before every kPlaceEvery-th message
};

}  // namespace sluice::cli
