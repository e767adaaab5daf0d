#include "sluice/stream/ledger.hpp"

namespace sluice::stream {
namespace {

constexpr std::uint8_t kFormat = 1;
constexpr std::uint64_t kMaxStored = 100'000;

Failure stale(std::uint64_t epoch) {
  return Failure(FailureKind::ordering, "stale_epoch",
                 "epoch " + std::to_string(epoch) +
                     " of this stream is over: another connection has taken it over; come again with a higher one");
}

}  // namespace

Bytes Progress::encode() const {
  Bytes out;
  ByteWriter writer(out);
  writer.u8(kFormat);
  for (const std::uint64_t n : {epoch, done, succeeded, replayed}) writer.varint(n);
  for (const auto n : failed) writer.varint(n);
  writer.varint(first_failures.size());
  for (const auto& one : first_failures) {
    writer.varint(one.sequence);
    writer.u8(static_cast<std::uint8_t>(one.what));
    writer.u8(static_cast<std::uint8_t>(one.failure.kind()));
    writer.bytes(one.failure.code());
    writer.bytes(one.failure.detail());
  }
  return out;
}

Result<Progress> Progress::decode(ByteView bytes) {
  ByteReader reader(bytes);
  Progress progress;
  const auto format = reader.u8();
  for (std::uint64_t* n : {&progress.epoch, &progress.done, &progress.succeeded, &progress.replayed}) *n = reader.varint();
  for (auto& n : progress.failed) n = reader.varint();
  const std::uint64_t count = reader.varint();
  for (std::uint64_t i = 0; i < count && count <= kMaxStored && reader.ok(); ++i) {
    Fallen one;
    one.sequence = reader.varint();
    one.what = static_cast<FailureClass>(reader.u8());
    const auto kind = static_cast<FailureKind>(reader.u8());
    const std::string code(reader.bytes());
    one.failure = Failure(kind, code, std::string(reader.bytes()));
    progress.first_failures.push_back(std::move(one));
  }
  if (format != kFormat || !reader.ok() || !reader.at_end())
    return fail(FailureKind::corrupt, "stream_mark", "the mark of this stream does not read back as it was written");
  return progress;
}

Task<Status> Ledger::open(std::uint64_t epoch) {
  store::GetRows get;
  get.keys.push_back(row_);
  store::QueryAwaiter<store::GetRows> asking(store_, std::move(get));
  Result<store::GetRows::Answer> rows = co_await asking;
  if (!rows) co_return fail(rows.error());
  if (const auto& row = rows->at(0)) {
    Result<Progress> known = Progress::decode(row->value);
    if (!known) co_return fail(known.error());
    if (epoch <= known->epoch) co_return fail(stale(epoch));
    progress_ = std::move(*known);
    version_ = row->version;
  }
  progress_.epoch = epoch;
  auto putting = put();
  Status taken = co_await putting;
  co_return taken;
}

void Ledger::advance(std::uint64_t sequence, FailureClass what, bool replayed, const Failure* failure,
                     std::size_t max_failures) {
  progress_.done = sequence;
  if (what == FailureClass::none) {
    ++progress_.succeeded;
    if (replayed) ++progress_.replayed;
    return;
  }
  ++progress_.failed[static_cast<std::size_t>(what)];
  if (failure != nullptr && progress_.first_failures.size() < max_failures)
    progress_.first_failures.push_back({sequence, what, *failure});
}

Task<Status> Ledger::save() {
  auto putting = put();
  Status saved = co_await putting;
  co_return saved;
}

Task<Status> Ledger::put() {
  const std::uint64_t done = progress_.done;
  store::Commit commit;
  commit.requires_.push_back({store::KvVersionIs{row_, version_}, "epoch"});
  commit.then.push_back(store::KvPut{row_, progress_.encode(), static_cast<std::int64_t>(done)});
  store::CommitAwaiter writing(store_, std::move(commit));
  Result<store::CommitOutcome> outcome = co_await writing;
  if (!outcome) co_return fail(outcome.error());
  if (!outcome->applied) co_return fail(stale(progress_.epoch));
  ++version_;
  saved_ = done;
  co_return Status{};
}

}  // namespace sluice::stream
