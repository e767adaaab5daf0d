#include "store/memory/tables.hpp"

#include <algorithm>

namespace sluice::store {
namespace {

template <class Map, class Key>
auto copy_of(const Map& map, const Key& key) -> std::optional<typename Map::mapped_type> {
  const auto found = map.find(key);
  if (found == map.end()) return std::nullopt;
  return found->second;
}

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

}  // namespace

Result<std::optional<KvRow>> MemoryTables::load_kv(const KvKey& key) { return copy_of(kv_, key); }
Result<std::optional<KeyRow>> MemoryTables::load_key(const Bytes& scope) {
  return copy_of(keys_, scope);
}
Result<std::optional<LeaseRow>> MemoryTables::load_lease(const std::string& name) {
  return copy_of(leases_, name);
}
Result<std::optional<OpenRow>> MemoryTables::load_open(ExchangeId exchange) {
  return copy_of(open_, exchange.value);
}
Result<std::uint32_t> MemoryTables::load_next_record(ExchangeId exchange) {
  const auto found = journal_.find(exchange.value);
  return found == journal_.end() ? 0 : static_cast<std::uint32_t>(found->second.size());
}
Result<std::uint64_t> MemoryTables::load_event_sequence(const std::string& ns) {
  const auto found = event_sequence_.find(ns);
  return found == event_sequence_.end() ? 0 : found->second;
}

void MemoryTables::apply(const GroupWrites& writes) {
  for (const auto& w : writes.kv) {
    if (w.row == nullptr)
      kv_.erase(*w.key);
    else
      kv_[*w.key] = *w.row;
  }
  for (const auto& w : writes.keys) {
    if (w.row == nullptr) {
      keys_.erase(*w.scope);
    } else {
      largest_id_ = std::max(largest_id_, w.row->exchange.value);
      keys_[*w.scope] = *w.row;
    }
  }
  for (const auto& w : writes.open) {
    if (w.row == nullptr)
      open_.erase(w.exchange.value);
    else
      open_[w.exchange.value] = *w.row;
  }
  for (const auto& w : writes.leases) leases_[*w.name] = *w.row;
  for (const auto* row : writes.journal) {
    largest_id_ = std::max(largest_id_, row->exchange.value);
    journal_[row->exchange.value].push_back(*row);
  }
  for (const auto* row : writes.events) {
    largest_id_ = std::max(largest_id_, row->id.value);
    event_sequence_[row->ns] = row->sequence;
    events_[row->ns].push_back(*row);
  }
  for (auto* row : writes.audit) {
    row->sequence = ++audit_sequence_;
    audit_.push_back(*row);
  }
}

Answer MemoryTables::answer(const Query& query, WallTime now) const {
  return std::visit(
      Overloaded{
          [&](const GetRows& q) -> Answer {
            GetRows::Answer rows;
            for (const auto& key : q.keys) rows.push_back(copy_of(kv_, key));
            return rows;
          },
          [&](const ListRows& q) -> Answer {
            ListRows::Answer rows;
            for (auto at = kv_.lower_bound(KvKey{q.ns, q.collection, std::max(q.prefix, q.after)});
                 at != kv_.end() && rows.size() < q.limit; ++at) {
              const auto& key = at->first;
              if (key.ns != q.ns || key.collection != q.collection || !key.key.starts_with(q.prefix))
                break;
              if (q.after.empty() || key.key > q.after) rows.push_back({key, at->second});
            }
            return rows;
          },
          [&](const FindKey& q) -> Answer {
            auto row = copy_of(keys_, q.scope);
            if (row && row->expires_at <= now) row.reset();
            return row;
          },
          [&](const ReadJournal& q) -> Answer {
            return copy_of(journal_, q.exchange.value).value_or(ReadJournal::Answer{});
          },
          [&](const ListJournal& q) -> Answer {
            ListJournal::Answer rows;
            auto at = q.before ? journal_.lower_bound(q.before.value) : journal_.end();
            while (at != journal_.begin() && rows.size() < q.limit) rows.push_back((--at)->second.front());
            return rows;
          },
          [&](const ListOpen& q) -> Answer {
            ListOpen::Answer rows;
            for (auto at = open_.upper_bound(q.after.value); at != open_.end() && rows.size() < q.limit;
                 ++at)
              if (!q.state || at->second.state == *q.state) rows.push_back(at->second);
            return rows;
          },
          [&](const ListEvents& q) -> Answer {
            ListEvents::Answer rows;
            if (const auto found = events_.find(q.ns); found != events_.end())
              for (const auto& row : found->second) {
                if (rows.size() >= q.limit) break;
                if (row.sequence > q.after) rows.push_back(row);
              }
            return rows;
          },
          [&](const ListAudit& q) -> Answer {
            ListAudit::Answer rows;
            for (auto at = audit_.rbegin(); at != audit_.rend() && rows.size() < q.limit; ++at)
              if (q.before == 0 || at->sequence < q.before) rows.push_back(*at);
            return rows;
          },
          [&](const GetLease& q) -> Answer { return copy_of(leases_, q.name); },
      },
      query);
}

PurgeResult MemoryTables::purge(WallTime now, WallTime oldest, std::size_t limit) {
  PurgeResult result;
  for (auto at = keys_.begin(); at != keys_.end() && result.keys < limit;) {
    const bool gone = at->second.expires_at <= now && !open_.contains(at->second.exchange.value);
    at = gone ? (++result.keys, keys_.erase(at)) : std::next(at);
  }
  for (auto at = journal_.begin(); at != journal_.end() && result.journal < limit;) {
    if (IdSource::time_of(at->first) >= oldest) break;
    if (open_.contains(at->first)) {
      ++at;
      continue;
    }
    result.journal += at->second.size();
    at = journal_.erase(at);
  }
  const auto trim = [&](auto& rows, std::uint64_t& count) {
    auto end = rows.begin();
    while (end != rows.end() && count < limit && end->at < oldest) ++end, ++count;
    rows.erase(rows.begin(), end);
  };
  trim(audit_, result.audit);
  for (auto& [ns, rows] : events_) trim(rows, result.events);
  result.more = result.keys >= limit || result.journal >= limit || result.audit >= limit ||
                result.events >= limit;
  return result;
}

}  // namespace sluice::store
