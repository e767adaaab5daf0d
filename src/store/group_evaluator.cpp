#include "store/group_evaluator.hpp"

#include <algorithm>

namespace sluice::store {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

// A life without end does not overflow.
template <class Life>
WallTime after(WallTime now, Life life) noexcept {
  return life > WallTime::max() - now ? WallTime::max() : now + life;
}

void encode_name(Bytes& out, const KvKey& key) {
  out.clear();
  ByteWriter writer(out);
  writer.bytes(key.ns);
  writer.bytes(key.collection);
  writer.raw(key.key);
}

}  // namespace

void GroupEvaluator::begin(WallTime now) {
  now_ = now;
  kv_.clear();
  keys_.clear();
  leases_.clear();
  open_.clear();
  next_record_.clear();
  expanded_.clear();
  writes_.clear();
  // event_sequence_ stays: only this evaluator gives numbers out.
}

Result<GroupEvaluator::KvSlot*> GroupEvaluator::kv(const KvKey& key) {
  encode_name(name_, key);
  if (auto* entry = kv_.find(name_)) return &entry->slot;
  auto loaded = rows_.load_kv(key);
  if (!loaded) return fail(std::move(loaded).error());
  auto& entry = kv_.add(name_);
  entry.slot.existed = loaded->has_value();
  entry.slot.current = *std::move(loaded);
  entry.slot.own_key = key;
  entry.slot.key = &entry.slot.own_key;
  return &entry.slot;
}

Result<GroupEvaluator::KeySlot*> GroupEvaluator::key(const Bytes& scope) {
  if (auto* entry = keys_.find(scope)) return &entry->slot;
  auto loaded = rows_.load_key(scope);
  if (!loaded) return fail(std::move(loaded).error());
  auto& entry = keys_.add(scope);
  entry.slot.existed = loaded->has_value();
  if (loaded->has_value()) entry.slot.stored = (*loaded)->exchange;
  entry.slot.current = *std::move(loaded);
  return &entry.slot;
}

Result<Slot<LeaseRow>*> GroupEvaluator::lease(const std::string& name) {
  if (auto* entry = leases_.find(name)) return &entry->slot;
  auto loaded = rows_.load_lease(name);
  if (!loaded) return fail(std::move(loaded).error());
  auto& entry = leases_.add(name);
  entry.slot.existed = loaded->has_value();
  entry.slot.current = *std::move(loaded);
  return &entry.slot;
}

Result<Slot<OpenRow>*> GroupEvaluator::open(ExchangeId exchange) {
  if (const auto found = open_.find(exchange.value); found != open_.end()) return &found->second;
  auto loaded = rows_.load_open(exchange);
  if (!loaded) return fail(std::move(loaded).error());
  auto& slot = open_[exchange.value];
  slot.existed = loaded->has_value();
  slot.current = *std::move(loaded);
  return &slot;
}

Result<std::uint32_t*> GroupEvaluator::next_record(ExchangeId exchange) {
  if (const auto found = next_record_.find(exchange.value); found != next_record_.end())
    return &found->second;
  auto loaded = rows_.load_next_record(exchange);
  if (!loaded) return fail(std::move(loaded).error());
  return &(next_record_[exchange.value] = *loaded);
}

Result<std::uint64_t*> GroupEvaluator::event_sequence(const std::string& ns) {
  if (const auto found = event_sequence_.find(ns); found != event_sequence_.end())
    return &found->second;
  auto loaded = rows_.load_event_sequence(ns);
  if (!loaded) return fail(std::move(loaded).error());
  return &(event_sequence_[ns] = *loaded);
}

Result<GroupEvaluator::Check> GroupEvaluator::check(const Precondition& what) {
  const auto number = [this](const KvKey& at, auto holds) -> Result<Check> {
    SLUICE_ASSIGN(KvSlot * slot, kv(at));
    const std::int64_t found = slot->current ? slot->current->number : 0;
    return Check{.holds = holds(found), .observed = found};
  };
  return std::visit(
      Overloaded{
          [&](const KvVersionIs& c) -> Result<Check> {
            SLUICE_ASSIGN(KvSlot * slot, kv(c.key));
            const std::uint64_t found = slot->current ? slot->current->version : 0;
            return Check{.holds = found == c.version, .observed = static_cast<std::int64_t>(found)};
          },
          [&](const KvAtLeast& c) -> Result<Check> {
            return number(c.key, [&](std::int64_t found) { return found >= c.minimum; });
          },
          [&](const KvAtMost& c) -> Result<Check> {
            return number(c.key, [&](std::int64_t found) { return found <= c.maximum; });
          },
          [&](const KvExists& c) -> Result<Check> {
            SLUICE_ASSIGN(KvSlot * slot, kv(c.key));
            return Check{.holds = slot->current.has_value()};
          },
          [&](const KeyFree& c) -> Result<Check> {
            SLUICE_ASSIGN(KeySlot * slot, key(c.scope));
            return Check{.holds = !live(*slot), .key = slot->current ? &*slot->current : nullptr};
          },
          [&](const KeyFits& c) -> Result<Check> {
            SLUICE_ASSIGN(KeySlot * slot, key(c.scope));
            const auto& row = slot->current;
            return Check{.holds = !live(*slot) || row->fingerprint == c.fingerprint, .key = row ? &*row : nullptr};
          },
          [&](const KeyHeldBy& c) -> Result<Check> {
            SLUICE_ASSIGN(KeySlot * slot, key(c.scope));
            const auto& row = slot->current;
            return Check{.holds = row && row->state == KeyState::claimed &&
                                  row->exchange == c.exchange && row->token == c.token,
                         .key = row ? &*row : nullptr};
          },
          [&](const Fence& c) -> Result<Check> {
            SLUICE_ASSIGN(Slot<LeaseRow> * slot, lease(c.lease));
            const auto& row = slot->current;
            return Check{.holds = row && row->token == c.token && row->incarnation == incarnation_ &&
                                  row->expires_at > now_,
                         .observed = row ? static_cast<std::int64_t>(row->token) : 0,
                         .lease = row ? &*row : nullptr};
          },
          [&](const LeaseFree& c) -> Result<Check> {
            SLUICE_ASSIGN(Slot<LeaseRow> * slot, lease(c.lease));
            const auto& row = slot->current;
            return Check{.holds = !row || row->expires_at <= now_ || row->owner == c.owner ||
                                  row->incarnation != incarnation_,
                         .lease = row ? &*row : nullptr};
          },
          [&](const JournalAt& c) -> Result<Check> {
            SLUICE_ASSIGN(std::uint32_t * next, next_record(c.exchange));
            return Check{.holds = *next == c.n, .observed = *next};
          },
      },
      what);
}

// Loads every row the mutations touch, so that applying them cannot fail half way.
Status GroupEvaluator::touch(const std::vector<Mutation>& mutations) {
  for (const auto& mutation : mutations) {
    const Status loaded = std::visit(
        Overloaded{
            [&](const KvPut& m) -> Status {
              SLUICE_ASSIGN(KvSlot * slot, kv(m.key));
              if (!m.number) return {};
              return plan(*slot, *m.number, 0);
            },
            [&](const KvDelete& m) -> Status {
              SLUICE_ASSIGN(KvSlot * slot, kv(m.key));
              return plan(*slot, 0, 0);
            },
            [&](const KvAdd& m) -> Status {
              SLUICE_ASSIGN(KvSlot * slot, kv(m.key));
              const std::int64_t now = slot->current ? slot->current->number : 0;
              return plan(*slot, slot->touched_by == commit_ ? slot->planned : now, m.delta);
            },
            [&](const KeyPut& m) -> Status { SLUICE_TRY(key(m.row.scope)); return {}; },
            [&](const KeyDelete& m) -> Status { SLUICE_TRY(key(m.scope)); return {}; },
            [&](const JournalAppend& m) -> Status { SLUICE_TRY(next_record(m.row.exchange)); return {}; },
            [&](const OpenPut& m) -> Status { SLUICE_TRY(open(m.row.exchange)); return {}; },
            [&](const OpenDelete& m) -> Status { SLUICE_TRY(open(m.exchange)); return {}; },
            [&](const EventAppend& m) -> Status { SLUICE_TRY(event_sequence(m.row.ns)); return {}; },
            [&](const AuditAppend&) -> Status { return {}; },
            [&](const LeaseTake& m) -> Status { SLUICE_TRY(lease(m.lease)); return {}; },
            [&](const LeaseDrop& m) -> Status { SLUICE_TRY(lease(m.lease)); return {}; },
        },
        mutation);
    if (!loaded) return loaded;
  }
  return validate(mutations);
}

// Foresees the number of a row, so that an overflow is found before anything is written.
Status GroupEvaluator::plan(KvSlot& slot, std::int64_t start, std::int64_t delta) {
  slot.touched_by = commit_;
  if (!__builtin_add_overflow(start, delta, &slot.planned)) return {};
  slot.planned = start;
  return fail(FailureKind::invalid_argument, "number_overflow",
              "row " + slot.key->ns + "/" + slot.key->collection + "/" + slot.key->key +
                  ": its number is " + std::to_string(start) + ", adding " + std::to_string(delta) +
                  " leaves 64 bits; nothing of this commit was applied");
}

// A journal record out of place is the submitter's defect, found before anything is written.
Status GroupEvaluator::validate(const std::vector<Mutation>& mutations) {
  for (auto at = mutations.begin(); at != mutations.end(); ++at) {
    const auto* append = std::get_if<JournalAppend>(&*at);
    if (append == nullptr) continue;
    std::uint32_t next = next_record_.at(append->row.exchange.value);
    for (auto earlier = mutations.begin(); earlier != at; ++earlier)
      if (const auto* other = std::get_if<JournalAppend>(&*earlier))
        next += other->row.exchange == append->row.exchange ? 1 : 0;
    if (append->row.n != next)
      return fail(FailureKind::invalid_argument, "journal_gap",
                  "journal of " + to_string(append->row.exchange) + ": expected record " +
                      std::to_string(next) + ", got " + std::to_string(append->row.n));
  }
  return {};
}

Result<CommitOutcome> GroupEvaluator::evaluate(Commit& commit) {
  ++commit_;
  CommitOutcome outcome;
  std::vector<Mutation>* chosen = &commit.then;
  for (std::size_t i = 0; i < commit.requires_.size(); ++i) {
    const auto& requirement = commit.requires_[i];
    SLUICE_ASSIGN(const Check found, check(requirement.what));
    if (found.holds) continue;
    outcome.applied = false;
    outcome.refused = static_cast<std::int32_t>(i);
    outcome.observed = found.observed;
    if (found.key != nullptr) outcome.key = *found.key;
    if (found.lease != nullptr) outcome.lease = *found.lease;
    if (requirement.otherwise < 0) return outcome;
    const auto branch = static_cast<std::size_t>(requirement.otherwise);
    if (branch >= commit.otherwise.size())
      return fail(FailureKind::invalid_argument, "no_such_branch",
                  "requirement '" + requirement.name + "' names branch " + std::to_string(branch) +
                      " of " + std::to_string(commit.otherwise.size()));
    chosen = &commit.otherwise[branch];
    break;
  }
  SLUICE_TRY(touch(*chosen));
  if (expander_ != nullptr) {
    std::vector<Mutation> more;
    SLUICE_TRY(expander_->expand(*chosen, more));
    if (!more.empty()) {
      // Kept first: what is looked up for them refers to them until the group ends.
      auto& kept = expanded_.emplace_back(std::move(more));
      SLUICE_TRY(touch(kept));
      apply(*chosen, outcome);
      apply(kept, outcome);
      return outcome;
    }
  }
  apply(*chosen, outcome);
  return outcome;
}

void GroupEvaluator::put_key(KeyPut& put) {
  KeySlot& slot = **key(put.row.scope);
  put.row.stored_at = now_;
  put.row.expires_at = after(now_, put.ttl);
  if (put.row.state == KeyState::claimed)
    put.row.token = (slot.current ? slot.current->token : 0) + 1;
  else if (put.row.token == 0 && slot.current)
    put.row.token = slot.current->token;
  slot.current = put.row;
  slot.dirty = true;
}

void GroupEvaluator::take_lease(const LeaseTake& take, CommitOutcome& outcome) {
  auto& slot = **lease(take.lease);
  const bool renewal = slot.current && slot.current->owner == take.owner &&
                       slot.current->incarnation == incarnation_ && slot.current->expires_at > now_;
  const std::uint64_t last = slot.current ? slot.current->token : 0;
  slot.current = LeaseRow{.name = take.lease,
                          .owner = take.owner,
                          .token = renewal ? last : last + 1,
                          .incarnation = incarnation_,
                          .expires_at = after(now_, take.ttl)};
  slot.dirty = true;
  outcome.lease = slot.current;
}

void GroupEvaluator::apply(std::vector<Mutation>& mutations, CommitOutcome& outcome) {
  // Every row is in the overlay already (touch), so looking one up cannot fail here.
  const auto change = [this](const KvKey& at) -> KvSlot& {
    KvSlot& slot = **kv(at);
    slot.dirty = true;
    return slot;
  };
  const auto make = [this](KvSlot& slot) -> KvRow& {
    if (!slot.current) {
      slot.current.emplace();
      slot.current->version = 1;
    } else if (slot.versioned_by != commit_) {
      ++slot.current->version;
    }
    slot.versioned_by = commit_;
    return *slot.current;
  };
  for (auto& mutation : mutations)
    std::visit(Overloaded{
                   [&](KvPut& m) {
                     KvRow& row = make(change(m.key));
                     row.value = m.value;
                     if (m.number) row.number = *m.number;
                   },
                   [&](KvDelete& m) { change(m.key).current.reset(); },
                   [&](KvAdd& m) { make(change(m.key)).number += m.delta; },
                   [&](KeyPut& m) { put_key(m); },
                   [&](KeyDelete& m) {
                     KeySlot& slot = **key(m.scope);
                     slot.current.reset();
                     slot.dirty = true;
                   },
                   [&](JournalAppend& m) {
                     ++**next_record(m.row.exchange);
                     writes_.journal.push_back(&m.row);
                   },
                   [&](OpenPut& m) {
                     auto& slot = **open(m.row.exchange);
                     m.row.since = slot.current ? slot.current->since : now_;
                     slot.current = m.row;
                     slot.dirty = true;
                   },
                   [&](OpenDelete& m) {
                     auto& slot = **open(m.exchange);
                     slot.current.reset();
                     slot.dirty = true;
                   },
                   [&](EventAppend& m) {
                     m.row.sequence = ++**event_sequence(m.row.ns);
                     m.row.at = now_;
                     writes_.events.push_back(&m.row);
                   },
                   [&](AuditAppend& m) {
                     m.row.at = now_;
                     writes_.audit.push_back(&m.row);
                   },
                   [&](LeaseTake& m) { take_lease(m, outcome); },
                   [&](LeaseDrop& m) {
                     auto& slot = **lease(m.lease);
                     // The row stays, expired, so that the next owner's token is higher.
                     if (slot.current) slot.current->expires_at = now_;
                     slot.dirty = true;
                   },
               },
               mutation);
}

const GroupWrites& GroupEvaluator::writes() {
  for (auto& entry : kv_.entries())
    if (entry.slot.dirty && (entry.slot.current || entry.slot.existed))
      writes_.kv.push_back({entry.slot.key, entry.slot.current ? &*entry.slot.current : nullptr,
                            entry.slot.existed});
  for (auto& entry : keys_.entries())
    if (entry.slot.dirty && (entry.slot.current || entry.slot.existed))
      writes_.keys.push_back({&entry.name, entry.slot.current ? &*entry.slot.current : nullptr,
                              entry.slot.stored});
  for (auto& [id, slot] : open_)
    if (slot.dirty && (slot.current || slot.existed))
      writes_.open.push_back({ExchangeId{id}, slot.current ? &*slot.current : nullptr, slot.existed});
  // Unordered maps give no order; the simulator's histories need one.
  std::ranges::sort(writes_.open, {}, [](const GroupWrites::Open& w) { return w.exchange.value; });
  for (auto& entry : leases_.entries())
    if (entry.slot.dirty && entry.slot.current)
      writes_.leases.push_back({&entry.name, &*entry.slot.current});
  return writes_;
}

}  // namespace sluice::store
