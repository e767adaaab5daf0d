// Transactions that leave no journal (plain handlers, flows in memory, aborts without a key) are
// known by their audit rows. Rows have no index by exchange, which every commit would pay for: they
// are in the order of time, and an id says its time.
#include <algorithm>

#include "flow/audit_trail.hpp"

namespace sluice::flow {
namespace {

constexpr std::size_t kPage = 1000;
constexpr std::size_t kMaxPages = 200;        // of one search: 200,000 rows, about a second
constexpr std::size_t kMaxFallbackPages = 20;  // when the clock was set back in between
constexpr milliseconds kSlack{2000};           // between the clock of ids and that of the store

/// The newest row with a smaller sequence.
Result<std::optional<store::AuditRow>> newest_before(store::Store& store, std::uint64_t sequence) {
  SLUICE_ASSIGN(const auto rows, store::ask_now(store, store::ListAudit{sequence, 1}));
  return rows.empty() ? std::nullopt : std::optional(rows[0]);
}

/// The first sequence that may have been written at `at` or later.
Result<std::uint64_t> first_since(store::Store& store, WallTime at) {
  SLUICE_ASSIGN(const auto newest, newest_before(store, 0));
  std::uint64_t low = 1, high = newest ? newest->sequence + 1 : 1;
  while (low < high) {
    const std::uint64_t middle = low + (high - low) / 2;
    SLUICE_ASSIGN(const auto row, newest_before(store, middle + 1));
    if (row && row->at >= at)
      high = std::min(middle, row->sequence);
    else
      low = middle + 1;
  }
  return low;
}

bool tells(const store::AuditRow& row) {
  return row.outcome == store::AuditOutcome::ok || row.outcome == store::AuditOutcome::error;
}

}  // namespace

Result<std::optional<store::AuditRow>> audit_of(store::Store& store, ExchangeId exchange) {
  const auto is_it = [&](const store::AuditRow& row) { return row.exchange == exchange && tells(row); };
  SLUICE_ASSIGN(std::uint64_t from, first_since(store, IdSource::time_of(exchange.value) - kSlack));
  for (std::size_t page = 0; page < kMaxPages; ++page, from += kPage) {
    SLUICE_ASSIGN(const auto rows, store::ask_now(store, store::ListAudit{from + kPage, kPage}));
    if (rows.empty() || rows.front().sequence < from) break;  // past the newest
    if (const auto found = std::ranges::find_if(rows, is_it); found != rows.end()) return *found;
  }
  std::uint64_t before = 0;
  for (std::size_t page = 0; page < kMaxFallbackPages; ++page) {
    SLUICE_ASSIGN(const auto rows, store::ask_now(store, store::ListAudit{before, kPage}));
    if (const auto found = std::ranges::find_if(rows, is_it); found != rows.end()) return *found;
    if (rows.size() < kPage) break;
    before = rows.back().sequence;
  }
  return std::nullopt;
}

Result<std::vector<store::AuditRow>> audits_before(store::Store& store, ExchangeId before, std::size_t limit,
                                                   const std::function<bool(const store::AuditRow&)>& listed) {
  std::vector<store::AuditRow> found;
  // Where there is little traffic the first pass also finds what took minutes; where there is much,
  // it ends among newer ones and the second begins at the id's own time.
  for (const milliseconds slack : {milliseconds(300'000), kSlack}) {
    std::uint64_t sequence = 0;
    if (before) {
      SLUICE_ASSIGN(sequence, first_since(store, IdSource::time_of(before.value) + slack));
    }
    found.clear();
    const std::size_t pages = slack == kSlack ? kMaxFallbackPages : 5;
    for (std::size_t page = 0; page < pages && found.size() < limit; ++page) {
      SLUICE_ASSIGN(const auto rows, store::ask_now(store, store::ListAudit{sequence, kPage}));
      for (const auto& row : rows)
        if (found.size() < limit && row.exchange && (!before || row.exchange < before) && tells(row) &&
            (!listed || listed(row)))
          found.push_back(row);
      if (rows.size() < kPage) return found;
      sequence = rows.back().sequence;
    }
    if (found.size() >= limit || !before) break;
  }
  return found;
}

TransactionView view_of(const store::AuditRow& row) {
  TransactionView view;
  view.exchange = row.exchange;
  view.ns = row.ns;
  view.principal = row.principal;
  view.command = row.command;
  view.correlation = row.correlation;
  view.outcome = row.outcome == store::AuditOutcome::ok       ? "committed"
                 : row.detail == traits(FailureKind::unknown_outcome).name ? "unknown"
                                                              : "aborted";
  view.cause = row.detail;
  view.began = IdSource::time_of(row.exchange.value);
  view.audit = row;
  return view;
}

}  // namespace sluice::flow
