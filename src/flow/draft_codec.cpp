#include "flow/draft_codec.hpp"

namespace sluice::flow {
namespace {

// Stored; append only.
enum class Tag : std::uint8_t { version_is = 1, at_least, at_most, exists, put, erase, add };

void write_key(ByteWriter& out, const store::KvKey& key) {
  out.bytes(key.ns);
  out.bytes(key.collection);
  out.bytes(key.key);
}
store::KvKey read_key(ByteReader& in) {
  store::KvKey key;
  key.ns = in.bytes();
  key.collection = in.bytes();
  key.key = in.bytes();
  return key;
}

// What a draft can hold: the rest of the variants are the runtime's own.
struct Write {
  ByteWriter& out;
  void tag(Tag tag) const { out.u8(static_cast<std::uint8_t>(tag)); }
  void operator()(const store::KvVersionIs& p) const {
    tag(Tag::version_is), write_key(out, p.key), out.varint(p.version);
  }
  void operator()(const store::KvAtLeast& p) const {
    tag(Tag::at_least), write_key(out, p.key), out.signed_varint(p.minimum);
  }
  void operator()(const store::KvAtMost& p) const {
    tag(Tag::at_most), write_key(out, p.key), out.signed_varint(p.maximum);
  }
  void operator()(const store::KvExists& p) const { tag(Tag::exists), write_key(out, p.key); }
  void operator()(const store::KvPut& m) const {
    tag(Tag::put), write_key(out, m.key), out.bytes(m.value);
    out.u8(m.number ? 1 : 0);
    out.signed_varint(m.number.value_or(0));
  }
  void operator()(const store::KvDelete& m) const { tag(Tag::erase), write_key(out, m.key); }
  void operator()(const store::KvAdd& m) const {
    tag(Tag::add), write_key(out, m.key), out.signed_varint(m.delta);
  }
  template <class Other>
  void operator()(const Other&) const {
    SLUICE_ASSERT(false, "a draft holds a precondition or change that is not of rows");
  }
};

std::optional<store::Precondition> read_precondition(ByteReader& in) {
  switch (static_cast<Tag>(in.u8())) {
    case Tag::version_is: {
      store::KvVersionIs p{read_key(in), 0};
      p.version = in.varint();
      return p;
    }
    case Tag::at_least: {
      store::KvAtLeast p{read_key(in), 0};
      p.minimum = in.signed_varint();
      return p;
    }
    case Tag::at_most: {
      store::KvAtMost p{read_key(in), 0};
      p.maximum = in.signed_varint();
      return p;
    }
    case Tag::exists: return store::KvExists{read_key(in)};
    default: return std::nullopt;
  }
}

std::optional<store::Mutation> read_mutation(ByteReader& in) {
  switch (static_cast<Tag>(in.u8())) {
    case Tag::put: {
      store::KvPut m;
      m.key = read_key(in);
      m.value = in.bytes();
      const bool numbered = in.u8() != 0;
      const std::int64_t number = in.signed_varint();
      if (numbered) m.number = number;
      return m;
    }
    case Tag::erase: return store::KvDelete{read_key(in)};
    case Tag::add: {
      store::KvAdd m;
      m.key = read_key(in);
      m.delta = in.signed_varint();
      return m;
    }
    default: return std::nullopt;
  }
}

}  // namespace

Bytes encode_draft(const Draft& draft) {
  Bytes bytes;
  if (draft.empty()) return bytes;
  ByteWriter out(bytes);
  out.varint(draft.guards.size());
  for (const auto& guard : draft.guards) {
    std::visit(Write{out}, guard.requirement.what);
    out.bytes(guard.requirement.name);
    out.bytes(guard.refusal ? guard.refusal->encode() : Bytes());
    out.u8(guard.conflict ? 1 : 0);
  }
  out.varint(draft.mutations.size());
  for (const auto& mutation : draft.mutations) std::visit(Write{out}, mutation);
  out.varint(draft.events.size());
  for (const auto& event : draft.events) {
    out.bytes(event.topic);
    out.bytes(event.payload);
  }
  return bytes;
}

Result<Draft> decode_draft(ByteView bytes) {
  Draft draft;
  if (bytes.empty()) return draft;
  const auto corrupt = [&](const char* what) {
    return fail(FailureKind::corrupt, "draft",
                "draft of " + std::to_string(bytes.size()) + " bytes: " + what);
  };
  ByteReader in(bytes);
  for (std::uint64_t left = in.varint(); left > 0; --left) {
    auto what = read_precondition(in);
    if (!what) return corrupt("an unknown precondition");
    Draft::Guard guard;
    guard.requirement.what = *std::move(what);
    guard.requirement.name = in.bytes();
    if (const ByteView refusal = in.bytes(); !refusal.empty()) {
      SLUICE_ASSIGN(guard.refusal, Reply::decode(refusal));
    }
    guard.conflict = in.u8() != 0;
    if (!in.ok()) return corrupt("a precondition ends in the middle");
    draft.guards.push_back(std::move(guard));
  }
  for (std::uint64_t left = in.varint(); left > 0; --left) {
    auto mutation = read_mutation(in);
    if (!mutation || !in.ok()) return corrupt("an unknown change, or one that ends in the middle");
    draft.mutations.push_back(*std::move(mutation));
  }
  for (std::uint64_t left = in.varint(); left > 0 && in.ok(); --left) {
    std::string topic(in.bytes());
    draft.events.push_back({std::move(topic), Bytes(in.bytes())});
  }
  if (!in.ok() || !in.at_end()) return corrupt("it does not end where it should");
  return draft;
}

}  // namespace sluice::flow
