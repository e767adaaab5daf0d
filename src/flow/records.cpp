#include "flow/records.hpp"

namespace sluice::flow {
namespace {

constexpr std::uint8_t kFormat = 1;
// Tags are the variant's indexes plus one; stored; append only.

void write_bag(ByteWriter& out, const DurableBag& bag) {
  out.varint(bag.size());
  for (const auto& [name, value] : bag) {
    out.bytes(name);
    out.bytes(value);
  }
}
DurableBag read_bag(ByteReader& in) {
  DurableBag bag;
  const auto count = in.varint();
  for (std::uint64_t i = 0; i < count && in.ok(); ++i) {
    std::string name(in.bytes());
    bag.emplace_back(std::move(name), Bytes(in.bytes()));
  }
  return bag;
}

void write(ByteWriter& out, const Begun& r) {
  out.bytes(r.flow);
  out.varint(r.version);
  out.u64(r.graph);
  out.bytes(r.ns);
  for (const auto* text : {&r.reference, &r.principal, &r.command, &r.correlation, &r.trace})
    out.bytes(*text);
  out.bytes(r.request);
  out.bytes(r.scope);
  if (!r.scope.empty()) {
    out.raw(r.fingerprint.view());
    out.signed_varint(r.key_ttl_ms);
    out.varint(r.key_token);
  }
  out.u8(r.audited ? 1 : 0);
}
void read(ByteReader& in, Begun& r) {
  r.flow = in.bytes();
  r.version = static_cast<std::uint32_t>(in.varint());
  r.graph = in.u64();
  r.ns = in.bytes();
  for (auto* text : {&r.reference, &r.principal, &r.command, &r.correlation, &r.trace})
    *text = in.bytes();
  r.request = in.bytes();
  r.scope = in.bytes();
  if (!r.scope.empty()) {
    const ByteView print = in.raw(sizeof r.fingerprint.bytes);
    if (in.ok()) std::memcpy(r.fingerprint.bytes, print.data(), print.size());
    r.key_ttl_ms = in.signed_varint();
    r.key_token = in.varint();
  }
  r.audited = in.u8() != 0;
}

void write(ByteWriter& out, const Intent& r) {
  out.varint(r.step);
  out.varint(r.stage);
  write_bag(out, r.bag);
}
void read(ByteReader& in, Intent& r) {
  r.step = static_cast<std::uint32_t>(in.varint());
  r.stage = static_cast<std::uint16_t>(in.varint());
  r.bag = read_bag(in);
}

void write_steps(ByteWriter& out, const Steps& steps) {
  out.varint(steps.size());
  for (const auto& step : steps) {
    out.varint(step.stage);
    out.u8(static_cast<std::uint8_t>((step.external ? 1 : 0) | (step.prepared ? 2 : 0) |
                                     (step.joined ? 4 : 0) | (step.finished ? 8 : 0) |
                                     (step.unsure ? 16 : 0)));
  }
}
Steps read_steps(ByteReader& in) {
  Steps steps;
  const auto count = in.varint();
  for (std::uint64_t i = 0; i < count && in.ok(); ++i) {
    Step step;
    step.stage = static_cast<std::uint16_t>(in.varint());
    const auto bits = in.u8();
    step.external = (bits & 1) != 0;
    step.prepared = (bits & 2) != 0;
    step.joined = (bits & 4) != 0;
    step.finished = (bits & 8) != 0;
    step.unsure = (bits & 16) != 0;
    steps.push_back(step);
  }
  return steps;
}

void write(ByteWriter& out, const Decided& r) {
  out.u8(static_cast<std::uint8_t>(r.decision));
  out.bytes(r.cause);
  out.bytes(r.reply);
  write_steps(out, r.steps);
  write_bag(out, r.bag);
}
void read(ByteReader& in, Decided& r) {
  r.decision = static_cast<Decision>(in.u8());
  r.cause = in.bytes();
  r.reply = in.bytes();
  r.steps = read_steps(in);
  r.bag = read_bag(in);
}

void write(ByteWriter& out, const Finished& r) { out.varint(r.step); }
void read(ByteReader& in, Finished& r) { r.step = static_cast<std::uint32_t>(in.varint()); }
void write(ByteWriter& out, const Ended& r) { out.u8(static_cast<std::uint8_t>(r.kind)); }
void read(ByteReader& in, Ended& r) { r.kind = static_cast<EndKind>(in.u8()); }
void write(ByteWriter& out, const Settled& r) {
  out.u8(static_cast<std::uint8_t>(r.kind));
  out.bytes(r.by);
  out.bytes(r.reason);
}
void read(ByteReader& in, Settled& r) {
  r.kind = static_cast<EndKind>(in.u8());
  r.by = in.bytes();
  r.reason = in.bytes();
}

void write_numbers(ByteWriter& out, const std::vector<std::uint16_t>& numbers) {
  out.varint(numbers.size());
  for (const auto number : numbers) out.varint(number);
}
std::vector<std::uint16_t> read_numbers(ByteReader& in) {
  std::vector<std::uint16_t> numbers;
  const auto count = in.varint();
  for (std::uint64_t i = 0; i < count && in.ok(); ++i)
    numbers.push_back(static_cast<std::uint16_t>(in.varint()));
  return numbers;
}

void write(ByteWriter& out, const Paused& r) {
  out.bytes(r.token);
  out.signed_varint(r.until_ms);
  out.varint(r.at.group);
  out.varint(r.at.position);
  write_numbers(out, r.at.pending);
  write_numbers(out, r.at.routed);
  write_steps(out, r.at.steps);
  write_bag(out, r.bag);
  out.bytes(r.response);
  out.bytes(r.draft);
}
void read(ByteReader& in, Paused& r) {
  r.token = in.bytes();
  r.until_ms = in.signed_varint();
  r.at.group = static_cast<std::uint16_t>(in.varint());
  r.at.position = static_cast<std::uint16_t>(in.varint());
  r.at.pending = read_numbers(in);
  r.at.routed = read_numbers(in);
  r.at.steps = read_steps(in);
  r.bag = read_bag(in);
  r.response = in.bytes();
  r.draft = in.bytes();
}
void write(ByteWriter& out, const Woken& r) { out.bytes(r.payload); }
void read(ByteReader& in, Woken& r) { r.payload = in.bytes(); }

template <class R>
Record read_as(ByteReader& in) {
  R record;
  read(in, record);
  return record;
}

}  // namespace

Bytes encode_row(std::initializer_list<const Record*> records) {
  Bytes row(5, '\0');
  row[0] = static_cast<char>(kFormat);
  ByteWriter out(row);
  for (const auto* record : records) {
    out.u8(static_cast<std::uint8_t>(record->index() + 1));
    std::visit([&](const auto& r) { write(out, r); }, *record);
  }
  const std::uint32_t crc = crc32c(ByteView(row).substr(5));
  std::memcpy(row.data() + 1, &crc, sizeof crc);
  return row;
}

Result<std::vector<Record>> decode_row(ByteView row) {
  const auto corrupt = [&](std::string why) {
    return fail(FailureKind::corrupt, "journal_record",
                "journal row of " + std::to_string(row.size()) + " bytes: " + std::move(why));
  };
  ByteReader head(row);
  const auto format = head.u8();
  const auto crc = head.u32();
  if (!head.ok()) return corrupt("shorter than its header of 5 bytes");
  if (format != kFormat)
    return corrupt("expected format 1, got " + std::to_string(format) +
                   "; a newer version of sluice wrote it");
  const ByteView body = row.substr(5);
  if (crc32c(body) != crc) return corrupt("its checksum does not match");
  ByteReader in(body);
  std::vector<Record> records;
  while (in.ok() && !in.at_end()) {
    switch (const auto tag = in.u8()) {
      case 1: records.push_back(read_as<Begun>(in)); break;
      case 2: records.push_back(read_as<Intent>(in)); break;
      case 3: records.push_back(read_as<Decided>(in)); break;
      case 4: records.push_back(read_as<Finished>(in)); break;
      case 5: records.push_back(read_as<Ended>(in)); break;
      case 6: records.push_back(read_as<Settled>(in)); break;
      case 7: records.push_back(read_as<Paused>(in)); break;
      case 8: records.push_back(read_as<Woken>(in)); break;
      default: return corrupt("unknown record tag " + std::to_string(tag));
    }
  }
  if (!in.ok()) return corrupt("a record ends in the middle");
  return records;
}

}  // namespace sluice::flow
