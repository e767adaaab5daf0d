#include "sluice/flow/exchange.hpp"

#include <algorithm>

namespace sluice::flow {

BagKey<std::string> durable_text(std::string_view name) {
  return {name, [](const std::string& value) { return value; },
          [](ByteView stored) -> Result<std::string> { return std::string(stored); }};
}

void Exchange::abort(std::string cause) {
  if (second_phase_) return;
  aborting_ = true;
  abort_cause_ = cause.empty() ? "aborted" : std::move(cause);
}

std::string Exchange::token() const {
  return to_string(id_) + "." + std::to_string(step_) + branch_;
}

Status Exchange::expect_wake(std::string token) {
  if (token.empty() || token.size() > 255)
    return fail(FailureKind::invalid_argument, "bad_wake_token",
                "expected a wake token of 1 to 255 bytes, got " + std::to_string(token.size()));
  if (desk_ == nullptr)
    return fail(FailureKind::invalid_argument, "pause_not_here",
                "a stage can pause only as a step of its flow, not inside parallel()");
  return desk_->expect_wake(std::move(token));
}

std::string Exchange::parallel_key() const { return "sluice.parallel." + std::to_string(step_) + branch_; }

void Exchange::become_branch(const Exchange& parent, std::uint32_t branch) {
  reference = parent.reference;
  principal = parent.principal;
  command = parent.command;
  correlation = parent.correlation;
  trace = parent.trace;
  response_ = parent.response_;
  step_ = parent.step_;
  branch_ = parent.branch_;
  enter_branch(branch);
  bag_ = parent.bag_;
  for (auto& entry : bag_) entry.changed = false;
  draft_ = parent.draft_;  // reads see what was drafted before
  seen_ = parent.seen_;
  drafted_before_ = {draft_.guards.size(), draft_.mutations.size(), draft_.events.size()};
  store_ = parent.store_;
  context_ = parent.context_;
  context_.scope = &scope_;
}

void Exchange::absorb_branch(Exchange& child) {
  const auto append = [](auto& into, auto& from, std::size_t start) {
    start = std::min(start, from.size());  // it may have cleared what it was given
    into.insert(into.end(), std::make_move_iterator(from.begin() + static_cast<std::ptrdiff_t>(start)),
                std::make_move_iterator(from.end()));
  };
  append(draft_.guards, child.draft_.guards, child.drafted_before_[0]);
  append(draft_.mutations, child.draft_.mutations, child.drafted_before_[1]);
  append(draft_.events, child.draft_.events, child.drafted_before_[2]);
  for (auto& entry : child.bag_)
    if (entry.changed) {
      const std::string name = entry.name;
      entry_for(name) = std::move(entry);
    }
  snapshot_moved_ = snapshot_moved_ || child.snapshot_moved_;
  for (auto& seen : child.seen_)
    if (std::ranges::none_of(seen_, [&](const Seen& s) { return s.key == seen.key; })) seen_.push_back(std::move(seen));
  const bool responded = child.responded_at_ != kNobody;
  if (responded && (!response_ || child.aborting_)) {
    response_ = std::move(child.response_);
    responded_at_ = step_;
  }
  if (child.aborting_ && !aborting_) abort(child.abort_cause_);
}

Exchange::Entry* Exchange::find(std::string_view name) noexcept {
  const auto found = std::ranges::find(bag_, name, &Entry::name);
  return found == bag_.end() ? nullptr : &*found;
}

Exchange::Entry& Exchange::entry_for(std::string_view name) {
  if (Entry* entry = find(name)) return *entry;
  Entry& entry = bag_.emplace_back();
  entry.name = name;
  return entry;
}

void Exchange::drop_transient() {
  std::erase_if(bag_, [](const Entry& entry) { return !entry.durable; });
  // What follows sees what recovery would see: the value as it was written.
  for (auto& entry : bag_) entry.value.reset();
}

std::vector<std::pair<std::string, Bytes>> Exchange::durable_entries() const {
  std::vector<std::pair<std::string, Bytes>> entries;
  for (const auto& entry : bag_)
    if (entry.durable) entries.emplace_back(entry.name, entry.stored);
  return entries;
}

void Exchange::restore_entry(std::string name, Bytes stored) {
  Entry& entry = entry_for(name);
  entry.value.reset();
  entry.stored = std::move(stored);
  entry.durable = true;
}

namespace {

std::uint64_t version_of(const std::optional<store::KvRow>& row) { return row ? row->version : 0; }

// What the draft would make of the row.
void apply(const std::vector<store::Mutation>& mutations, const store::KvKey& key, std::optional<store::KvRow>& row) {
  for (const auto& mutation : mutations) {
    if (const auto* put = std::get_if<store::KvPut>(&mutation); put && put->key == key) {
      if (!row) row.emplace();
      row->value = put->value;
      if (put->number) row->number = *put->number;
    } else if (const auto* add = std::get_if<store::KvAdd>(&mutation); add && add->key == key) {
      if (!row) row.emplace();
      row->number += add->delta;
    } else if (const auto* erase = std::get_if<store::KvDelete>(&mutation); erase && erase->key == key) {
      row.reset();
    }
  }
}

}  // namespace

// The store answers one query from one snapshot: asking for the earlier rows again shows whether they
// and the new ones ever stood beside each other.
store::GetRows Exchange::rows_to_ask(std::vector<store::KvKey> keys, Read how) const {
  store::GetRows wanted;
  wanted.keys = std::move(keys);
  if (how == Read::latest) return wanted;
  for (const auto& seen : seen_) wanted.keys.push_back(seen.key);
  return wanted;
}

Result<std::vector<std::optional<store::KvRow>>> Exchange::take_rows(const std::vector<store::KvKey>& keys, Read how,
                                                                     store::GetRows::Answer rows) {
  if (how != Read::latest) {
    const std::size_t before = seen_.size();
    for (std::size_t i = 0; i < before; ++i) {
      const Seen& seen = seen_[i];
      if (version_of(rows[keys.size() + i]) == seen.version) continue;
      snapshot_moved_ = true;
      return fail(FailureKind::version_conflict, "snapshot_moved",
                  "row " + seen.key.collection + "/" + seen.key.key + " changed between two reads of this exchange");
    }
    for (std::size_t i = 0; i < keys.size(); ++i)
      if (std::ranges::none_of(seen_, [&](const Seen& s) { return s.key == keys[i]; }))
        seen_.push_back({keys[i], version_of(rows[i])});
  }
  rows.resize(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const store::KvKey& key = keys[i];
    if (how == Read::verified)
      draft_.guards.push_back({{store::KvVersionIs{key, version_of(rows[i])}, "read " + key.collection + "/" + key.key},
                               std::nullopt,
                               true});
    apply(draft_.mutations, key, rows[i]);
  }
  return rows;
}

Result<std::vector<std::optional<store::KvRow>>> Exchange::read_rows(const std::vector<store::KvKey>& keys, Read how) {
  if (keys.empty()) return std::vector<std::optional<store::KvRow>>();  // nothing to ask
  if (store_ == nullptr)
    return fail(FailureKind::unavailable, "no_store", "this flow has no store to read from");
  // An embedded store answers at once; for a database apart the lane stands still meanwhile, until the deadline at most.
  const bool bounded = context_.lane != nullptr && context_.deadline != kNever;
  const Duration most = bounded ? context_.deadline - context_.lane->clock().now() : Duration::max();
  auto answer = store::ask_and_wait(*store_, rows_to_ask(keys, how), most);
  if (!answer) return fail(std::move(answer).error());
  return take_rows(keys, how, std::get<store::GetRows::Answer>(*std::move(answer)));
}

Result<std::optional<store::KvRow>> Exchange::read(const store::KvKey& key, Read how) {
  SLUICE_ASSIGN(auto rows, read_rows({key}, how));
  return std::move(rows.front());
}

Task<Result<std::vector<std::optional<store::KvRow>>>> Exchange::read_rows_task(std::vector<store::KvKey> keys, Read how) {
  using Answer = Result<std::vector<std::optional<store::KvRow>>>;
  if (keys.empty()) co_return std::vector<std::optional<store::KvRow>>();  // nothing to ask
  if (store_ == nullptr) {
    Answer none = fail(FailureKind::unavailable, "no_store", "this flow has no store to read from");
    co_return none;
  }
  auto asking = store::ask(*store_, rows_to_ask(keys, how));
  auto rows = co_await asking;
  if (!rows) {
    Answer failed = fail(rows.error());
    co_return failed;
  }
  Answer found = take_rows(keys, how, *std::move(rows));
  co_return found;
}

Task<Result<std::optional<store::KvRow>>> Exchange::read_task(store::KvKey key, Read how) {
  using Answer = Result<std::optional<store::KvRow>>;
  std::vector<store::KvKey> keys;
  keys.push_back(std::move(key));
  auto reading = read_rows_task(std::move(keys), how);
  auto rows = co_await reading;
  if (!rows) {
    Answer failed = fail(rows.error());
    co_return failed;
  }
  Answer one = std::move(rows->front());
  co_return one;
}

}  // namespace sluice::flow
