#include "sluice/stream/ledger.hpp"

#include <algorithm>

namespace sluice::stream {
namespace {

constexpr std::uint8_t kFormat = 2;
constexpr std::uint8_t kFirstFormat = 1;  // seven classes, no transactions, and nothing after the failures
constexpr std::size_t kFirstClasses = 7;
constexpr std::uint64_t kMaxStored = 100'000;

constexpr std::string_view kStale = "stale_epoch";
constexpr int kTakingsMax = 10;  // a mark moves every 256 messages or so

Failure stale(std::uint64_t epoch) {
  return Failure(FailureKind::ordering, kStale,
                 "epoch " + std::to_string(epoch) +
                     " of this stream is over: another connection has taken it over; come again with a higher one");
}

// Who comes with a clock that is behind learns what to be higher than.
Failure stale(std::uint64_t epoch, std::uint64_t held) {
  return stale(epoch).at("the stream is at epoch " + std::to_string(held)).with(std::string(kHeldEpoch), std::to_string(held));
}

Failure too_old(std::uint64_t done, milliseconds age) {
  const auto days = [](milliseconds time) { return std::to_string(time / std::chrono::hours(24)); };
  return Failure(FailureKind::precondition_failed, "stream_too_old",
                 "this stream last moved " + days(age) + " days ago, when its connection was cut; expected at most " +
                     days(kResumableFor) + ". Up to message " + std::to_string(done) +
                     " all is done; of later ones it is no longer known. Look what took effect, and send the rest "
                     "as a stream with another id");
}

void write(ByteWriter& writer, const Fallen& one) {
  writer.varint(one.sequence);
  writer.u8(static_cast<std::uint8_t>(one.what));
  writer.u8(static_cast<std::uint8_t>(one.failure.kind()));
  writer.bytes(one.failure.code());
  writer.bytes(one.failure.detail());
  writer.bytes(transaction_of(one.failure));
}

Fallen read_fallen(ByteReader& reader, std::uint8_t format) {
  Fallen one;
  one.sequence = reader.varint();
  one.what = static_cast<FailureClass>(reader.u8());
  const auto kind = static_cast<FailureKind>(reader.u8());
  const std::string code(reader.bytes());
  one.failure = Failure(kind, code, std::string(reader.bytes()));
  if (format == kFirstFormat) return one;
  if (const std::string transaction(reader.bytes()); !transaction.empty())
    one.failure = one.failure.with("transaction", transaction);
  return one;
}

}  // namespace

Bytes Progress::encode() const {
  Bytes out;
  ByteWriter writer(out);
  writer.u8(kFormat);
  for (const std::uint64_t n : {epoch, done, succeeded, replayed}) writer.varint(n);
  for (const auto n : failed) writer.varint(n);
  writer.varint(first_failures.size());
  for (const auto& one : first_failures) write(writer, one);
  writer.varint(reach);
  writer.varint(static_cast<std::uint64_t>(moved_at.time_since_epoch().count()));
  writer.varint(failed_ahead.size());
  for (const auto& [sequence, one] : failed_ahead) write(writer, one);
  return out;
}

Result<Progress> Progress::decode(ByteView bytes) {
  ByteReader reader(bytes);
  Progress progress;
  const auto format = reader.u8();
  for (std::uint64_t* n : {&progress.epoch, &progress.done, &progress.succeeded, &progress.replayed}) *n = reader.varint();
  const std::size_t classes = format == kFirstFormat ? kFirstClasses : kFailureClasses;
  for (std::size_t i = 0; i < classes; ++i) progress.failed[i] = reader.varint();
  const std::uint64_t told = reader.varint();
  for (std::uint64_t i = 0; i < told && told <= kMaxStored && reader.ok(); ++i)
    progress.first_failures.push_back(read_fallen(reader, format));
  if (format == kFormat) {
    progress.reach = reader.varint();
    progress.moved_at = WallTime(milliseconds(static_cast<std::int64_t>(reader.varint())));
    const std::uint64_t ahead = reader.varint();
    for (std::uint64_t i = 0; i < ahead && ahead <= kMaxStored && reader.ok(); ++i) {
      Fallen one = read_fallen(reader, format);
      progress.failed_ahead.insert_or_assign(progress.failed_ahead.end(), one.sequence, std::move(one));
    }
  }
  if ((format != kFormat && format != kFirstFormat) || !reader.ok() || !reader.at_end())
    return fail(FailureKind::corrupt, "stream_mark", "the mark of this stream does not read back as it was written");
  return progress;
}

Result<PurgedMarks> purge_marks(store::Store& store, const std::string& after, std::size_t limit) {
  store::ListRows list;
  list.ns = kMarksApp;
  list.collection = kMarks;
  list.after = after;
  list.limit = limit;
  SLUICE_ASSIGN(const auto rows, store::ask_now(store, std::move(list)));
  const WallTime now = store.now();
  PurgedMarks out;
  for (const auto& [key, row] : rows) {
    const auto mark = Progress::decode(row.value);
    if (!mark || mark->moved_at == WallTime{} || now - mark->moved_at < kMarksKept) continue;
    store::Commit commit;  // each its own: one that somebody takes over now stays, and keeps no other
    commit.requires_.push_back({store::KvVersionIs{key, row.version}, "mark"});
    commit.then.push_back(store::KvDelete{key});
    SLUICE_ASSIGN(const auto outcome, store::commit_and_wait(store, std::move(commit)));
    if (outcome.applied) ++out.deleted;
  }
  if (rows.size() == limit) out.next = rows.back().key.key;
  return out;
}

Task<Status> Ledger::open(std::uint64_t epoch) {
  for (int tried = 1;; ++tried) {
    store::GetRows get;
    get.keys.push_back(row_);
    store::QueryAwaiter<store::GetRows> asking(store_, std::move(get));
    Result<store::GetRows::Answer> rows = co_await asking;
    if (!rows) co_return fail(rows.error());
    const WallTime now = store_.now();
    if (const auto& row = rows->at(0)) {
      Result<Progress> known = Progress::decode(row->value);
      if (!known) co_return fail(known.error());
      if (epoch <= known->epoch) co_return fail(stale(epoch, known->epoch));
      if (known->moved_at == WallTime{}) known->moved_at = now;  // of the first format: nobody wrote it down
      const auto age = std::chrono::duration_cast<milliseconds>(now - known->moved_at);
      if (known->done < known->reach && age > kResumableFor) co_return fail(too_old(known->done, age));
      progress_ = std::move(*known);
      version_ = row->version;
      reach_before_ = progress_.reach;
      saved_ = progress_.done;
    } else {
      progress_.moved_at = now;
    }
    progress_.epoch = epoch;
    progress_.reach = Progress::kUnknown;
    auto putting = put();
    Status taken = co_await putting;
    // The connection before this one moved the mark once more meanwhile: that is no younger epoch.
    if (taken || taken.error().code() != kStale || tried == kTakingsMax) co_return taken;
  }
}

void Ledger::advance(std::uint64_t sequence, FailureClass what, bool replayed, const Failure* failure,
                     std::size_t max_failures) {
  changed_ = true;
  progress_.done = sequence;
  if (!progress_.failed_ahead.empty()) progress_.failed_ahead.erase(sequence);
  if (what == FailureClass::none) {
    ++progress_.succeeded;
    if (replayed) ++progress_.replayed;
    return;
  }
  ++progress_.failed[static_cast<std::size_t>(what)];
  if (failure != nullptr && progress_.first_failures.size() < max_failures)
    progress_.first_failures.push_back({sequence, what, *failure});
}

void Ledger::fail_ahead(Fallen fallen, std::size_t max_failures) {
  changed_ = true;
  if (progress_.failed_ahead.size() >= max_failures)
    fallen.failure = Failure(fallen.failure.kind(), fallen.failure.code(), "failed before; its text was not kept");
  const std::uint64_t sequence = fallen.sequence;
  progress_.failed_ahead.insert_or_assign(sequence, std::move(fallen));
}

const Fallen* Ledger::failed_ahead(std::uint64_t sequence) const {
  const auto at = progress_.failed_ahead.find(sequence);
  return at == progress_.failed_ahead.end() ? nullptr : &at->second;
}

void Ledger::close(std::uint64_t reach) noexcept {
  const std::uint64_t all = std::max(reach, reach_before_);
  if (all == progress_.reach) return;
  progress_.reach = all;
  changed_ = true;
}

Task<Status> Ledger::save() {
  auto putting = put();
  Status saved = co_await putting;
  co_return saved;
}

Task<Status> Ledger::put() {
  const std::uint64_t done = progress_.done;
  if (done != saved_) progress_.moved_at = store_.now();
  changed_ = false;
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
