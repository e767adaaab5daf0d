#include "cli/json_lines.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "sluice/base/bytes.hpp"

namespace sluice::cli {
namespace {

constexpr std::uint64_t kPlaceEvery = 4096;
constexpr std::size_t kMaxLine = 4 << 20;  // memory; what a server takes is its grpc.max_message_bytes

// One line. Numbers of the payload keep the text they were written with: an amount is not a double.
class Line final : public nlohmann::json_sax<nlohmann::json> {
 public:
  Line(transport::StreamMessage& out, bool only_payload, const std::string& order_by)
      : out_(out), order_by_(order_by), payload_depth_(only_payload ? 0 : 1), in_payload_(only_payload) {}

  std::string error;
  std::size_t column = 0;

  bool null() override { return value("null", nullptr); }
  bool boolean(bool v) override { return value(v ? "true" : "false", nullptr); }
  bool number_integer(number_integer_t v) override { return value(std::to_string(v), nullptr); }
  bool number_unsigned(number_unsigned_t v) override {
    if (!in_payload_ && key_ == "version") {
      if (v > UINT32_MAX) return wrong("a number below 4294967296");
      out_.version = static_cast<std::uint32_t>(v);
      return true;
    }
    return value(std::to_string(v), nullptr);
  }
  bool number_float(number_float_t, const string_t& as_written) override { return value(as_written, nullptr); }
  bool string(string_t& v) override { return value({}, &v); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open('{'); }
  bool end_object() override { return close('}'); }
  bool start_array(std::size_t) override { return open('['); }
  bool end_array() override { return close(']'); }
  bool key(string_t& name) override {
    if (in_payload_) {
      separate();
      out_.payload += quoted(name) + ":";
      after_key_ = true;
      orders_ = depth_ == payload_depth_ + 1 && !order_by_.empty() && name == order_by_;
      return true;
    }
    key_ = name;
    for (const char* known : {"name", "payload", "version", "idempotency_key", "ordering_key"})
      if (key_ == known) {
        in_payload_ = key_ == "payload";
        if (in_payload_) out_.payload.clear();
        return true;
      }
    error = fmt::format("unknown field '{}'; there are name, payload, version, idempotency_key, ordering_key", name);
    return false;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& what) override {
    column = position;
    error = what.what();
    if (const auto at = error.find("syntax error"); at != std::string::npos) error.erase(0, at);
    return false;
  }

 private:
  static std::string quoted(const std::string& text) { return nlohmann::json(text).dump(); }
  bool wrong(const char* expected) {
    error = fmt::format("field '{}': expected {}", key_, expected);
    return false;
  }
  void separate() {
    if (std::exchange(after_key_, false)) return;
    if (!out_.payload.empty() && out_.payload.back() != '{' && out_.payload.back() != '[') out_.payload += ',';
  }
  bool value(const std::string& plain, const std::string* text) {
    if (in_payload_) {
      if (depth_ == payload_depth_) return wrong_payload();
      separate();
      out_.payload += text != nullptr ? quoted(*text) : plain;
      if (std::exchange(orders_, false)) out_.ordering_key = text != nullptr ? *text : plain;
      return true;
    }
    if (depth_ == 0) return wrong_payload();
    if (text == nullptr || key_ == "version") return wrong(key_ == "version" ? "a whole number" : "a text");
    (key_ == "name" ? out_.name : key_ == "idempotency_key" ? out_.idempotency_key : out_.ordering_key) = *text;
    return true;
  }
  bool wrong_payload() {
    error = depth_ == 0 ? "expected an object, {...}" : "field 'payload': expected an object, {...}";
    return false;
  }
  bool open(char with) {
    if (in_payload_ ? depth_ == payload_depth_ && with == '[' : depth_ == 0 && with == '[') return wrong_payload();
    if (!in_payload_ && depth_ > 0) return wrong("a text");
    if (in_payload_) {
      separate();
      out_.payload += with;
      orders_ = false;
    }
    ++depth_;
    return true;
  }
  bool close(char with) {
    --depth_;
    if (!in_payload_) return true;
    out_.payload += with;
    if (depth_ == payload_depth_ && payload_depth_ > 0) in_payload_ = false;
    return true;
  }

  transport::StreamMessage& out_;
  const std::string& order_by_;
  const int payload_depth_;
  bool in_payload_;
  int depth_ = 0;
  bool after_key_ = false, orders_ = false;
  std::string key_;
};

}  // namespace

Result<std::unique_ptr<JsonLines>> JsonLines::open(const std::string& path, JsonLinesOptions options) {
  std::unique_ptr<JsonLines> made(new JsonLines(path, std::move(options)));
  SLUICE_TRY(made->read_all());
  return made;
}

Failure JsonLines::bad(std::string_view code, const std::string& what) const {
  return Failure(FailureKind::invalid_argument, code, fmt::format("{}:{}: {}", path_, line_, what));
}

Status JsonLines::read_all() {
  // A file that is redirected to /dev/stdin is one.
  std::error_code ignored;
  const auto kind = std::filesystem::status(path_, ignored).type();
  if (kind == std::filesystem::file_type::fifo || kind == std::filesystem::file_type::character || kind == std::filesystem::file_type::socket)
    return fail(FailureKind::invalid_argument, "no_file", path_ + ": a pipe cannot be sent: it is read twice; write it to a file first");
  file_.open(path_, std::ios::binary);
  if (!file_ || file_.peek() == std::ifstream::traits_type::eof())
    return fail(FailureKind::invalid_argument, "no_file",
                path_ + (file_.is_open() ? " is empty, or no file" : ": cannot be read") +
                    "; expected a file with one JSON object a line (a pipe cannot be read again after a cut)");
  digest_ = sha256(options_.command);
  std::string linked;
  while (true) {
    if (sequence_ % kPlaceEvery == 0) places_.push_back({file_.tellg(), line_});
    SLUICE_ASSIGN(const bool there, next());
    if (!there) break;
    ++count_;
    if (auto message = parse(); !message) return fail(message.error());
    // Each from the one before it and the line, so that no two files join to the same.
    linked.assign(digest_.view());
    linked += text_;
    digest_ = sha256(linked);
  }
  if (count_ == 0) return fail(bad("no_messages", "the file has empty lines only"));
  return {};
}

std::string JsonLines::identity() const { return to_hex(digest_.view()); }

Result<bool> JsonLines::next() {
  while (std::getline(file_, text_)) {
    ++line_;
    if (text_.ends_with('\r')) text_.pop_back();
    if (line_ == 1 && text_.starts_with("\xEF\xBB\xBF")) text_.erase(0, 3);
    if (text_.size() > kMaxLine)
      return fail(bad("line_too_long", fmt::format("{} bytes; a message has at most {}", text_.size(), kMaxLine)));
    if (text_.find_first_not_of(" \t") == std::string::npos) continue;
    ++sequence_;
    return true;
  }
  return false;
}

Result<transport::StreamMessage> JsonLines::parse() const {
  transport::StreamMessage message;
  const bool only_payload = !options_.command.empty();
  Line line(message, only_payload, options_.order_by);
  if (!nlohmann::json::sax_parse(text_, &line))
    return fail(bad("bad_line", (line.column != 0 ? fmt::format("column {}: ", line.column) : std::string()) + line.error));
  if (only_payload) message.name = options_.command;
  if (message.name.empty())
    return fail(bad("bad_line", R"(no command: expected "name" in the line, or name one before --stream)"));
  if (!options_.order_by.empty() && message.ordering_key.empty())
    return fail(bad("bad_line", fmt::format("the payload has no text or number '{}' to order by", options_.order_by)));
  if (options_.any_order && message.ordering_key.empty()) message.ordering_key = "line " + std::to_string(line_);
  return message;
}

void JsonLines::go_to(std::uint64_t sequence) {
  const std::uint64_t place = (sequence - 1) / kPlaceEvery;
  file_.clear();
  file_.seekg(places_[place].offset);
  line_ = places_[place].line;
  sequence_ = place * kPlaceEvery;
}

Result<std::optional<transport::StreamMessage>> JsonLines::at(std::uint64_t sequence) {
  if (sequence == 0 || sequence > count_) return std::optional<transport::StreamMessage>();
  if (sequence != sequence_ + 1) go_to(sequence);
  while (sequence_ < sequence) {
    SLUICE_ASSIGN(const bool there, next());
    if (!there) return fail(bad("file_changed", "the file is shorter than it was when it was checked"));
  }
  SLUICE_ASSIGN(auto message, parse());
  return std::optional(std::move(message));
}

std::uint64_t JsonLines::line_of(std::uint64_t sequence) {
  if (sequence == 0 || sequence > count_) return 0;
  go_to(sequence);
  while (sequence_ < sequence)
    if (const auto there = next(); !there || !*there) break;
  return line_;
}

}  // namespace sluice::cli
