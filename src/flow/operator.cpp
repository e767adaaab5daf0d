// What an operator sees of a transaction, and settling one that is in doubt.
#include <algorithm>
#include <deque>

#include "flow/audit_trail.hpp"
#include "flow/history.hpp"
#include "sluice/flow/recovery.hpp"

namespace sluice::flow {
namespace {

std::string outcome_word(const History& history, const std::optional<store::OpenState>& open) {
  if (history.ended) return *history.ended == EndKind::committed ? "committed" : "aborted";
  if (open == store::OpenState::in_doubt) return "in_doubt";
  if (open == store::OpenState::paused) return "paused";
  if (!history.decided) return "running";
  if (open) return "pending";
  return history.decided->decision == Decision::commit ? "committed" : "aborted";
}

std::vector<StageView> stages_of(const History& history, const Flow* flow) {
  std::vector<StageView> views;
  const auto add = [&](std::uint32_t step, std::uint16_t stage, bool external, std::string state) {
    const bool known = flow != nullptr && stage < flow->graph().stages.size();
    views.push_back({step,
                     known ? std::string(flow->graph().stages[stage]->name()) : "#" + std::to_string(stage),
                     external, std::move(state)});
  };
  const auto finished = [&](std::uint32_t step) {
    return std::ranges::find(history.finished, step) != history.finished.end();
  };
  if (history.decided && !history.decided->steps.empty()) {
    for (std::uint32_t i = 0; i < history.decided->steps.size(); ++i) {
      const Step& step = history.decided->steps[i];
      if (!step.external) continue;
      add(i, step.stage, true,
          history.ended || step.finished || finished(i) ? "finished" : step.prepared ? "prepared" : "unknown");
    }
  } else {
    for (const auto& intent : history.intents)
      add(intent.step, intent.stage, true, history.ended ? "finished" : "unknown");
  }
  return views;
}

Result<std::optional<store::OpenState>> open_state(store::Store& store, ExchangeId exchange) {
  store::ListOpen query;
  query.after = ExchangeId{exchange.value - 1};
  query.limit = 1;
  SLUICE_ASSIGN(const auto rows, store::ask_now(store, query));
  if (rows.empty() || rows[0].exchange != exchange) return std::nullopt;
  return rows[0].state;
}

}  // namespace

Result<TransactionView> describe(store::Store& store, ExchangeId exchange, const Flows* flows) {
  SLUICE_ASSIGN(const auto rows, store::ask_now(store, store::ReadJournal{exchange}));
  if (rows.empty()) {
    SLUICE_ASSIGN(const auto audit, audit_of(store, exchange));
    if (audit) return view_of(*audit);
    return fail(FailureKind::not_found, "no_transaction",
                "no transaction " + to_string(exchange) +
                    ": it never was, is older than store.retention_s, or runs and has stored nothing yet");
  }
  SLUICE_ASSIGN(History history, fold(rows));
  SLUICE_ASSIGN(const auto open, open_state(store, exchange));
  TransactionView view;
  view.exchange = exchange;
  view.flow = history.begun.flow;
  view.version = history.begun.version;
  view.ns = history.begun.ns;
  view.reference = history.begun.reference;
  view.principal = history.begun.principal;
  view.command = history.begun.command;
  view.correlation = history.begun.correlation;
  view.outcome = outcome_word(history, open);
  if (history.decided) {
    view.cause = history.decided->cause;
    if (auto reply = Reply::decode(history.decided->reply)) view.reply = *std::move(reply);
  }
  view.stages = stages_of(history, flows != nullptr ? flows->find(view.flow, view.version) : nullptr);
  view.began = IdSource::time_of(exchange.value);
  if (history.settled) {
    view.settled_by = history.settled->by;
    view.settled_reason = history.settled->reason;
  }
  view.records = rows.size();
  return view;
}

Result<std::vector<TransactionView>> list_transactions(
    store::Store& store, ExchangeId before, std::size_t limit,
    const std::function<bool(const store::AuditRow&)>& listed) {
  SLUICE_ASSIGN(const auto rows, store::ask_now(store, store::ListJournal{before, limit}));
  std::vector<TransactionView> views;
  for (const auto& row : rows) {
    SLUICE_ASSIGN(auto view, describe(store, row.exchange));
    views.push_back(std::move(view));
  }
  SLUICE_ASSIGN(const auto audits, audits_before(store, before, limit, listed));
  for (const auto& row : audits) {
    const auto same = [&](const TransactionView& view) { return view.exchange == row.exchange; };
    // Those with a journal that is older than the page's are cut off below.
    if (std::none_of(views.begin(), views.end(), same)) views.push_back(view_of(row));
  }
  std::ranges::sort(views, [](const auto& a, const auto& b) { return a.exchange > b.exchange; });
  if (views.size() > limit) views.resize(limit);
  return views;
}

Result<std::vector<TransactionView>> list_in_doubt(store::Store& store, std::size_t limit) {
  return list_open(store, {.state = store::OpenState::in_doubt, .limit = limit});
}

namespace {
// One that does not read hides none of the others.
TransactionView view_of_open(store::Store& store, const store::OpenRow& row) {
  auto view = describe(store, row.exchange);
  if (view) return *std::move(view);
  TransactionView unread;
  unread.exchange = row.exchange;
  unread.flow = row.flow;
  unread.ns = row.ns;
  unread.outcome = row.state == store::OpenState::in_doubt ? "in_doubt" : row.state == store::OpenState::paused ? "paused" : "running";
  unread.cause = view.error().to_string();
  unread.began = IdSource::time_of(row.exchange.value);
  return unread;
}
}  // namespace

Result<std::vector<TransactionView>> list_open(store::Store& store, const OpenQuery& query) {
  // A store tells them oldest first; of those chosen the newest stay.
  store::ListOpen page;
  page.state = query.state;
  std::deque<store::OpenRow> newest;
  for (bool more = true; more;) {
    SLUICE_ASSIGN(const auto rows, store::ask_now(store, page));
    more = rows.size() == page.limit;
    for (const auto& row : rows) {
      if (query.before && row.exchange >= query.before) {
        more = false;
        break;
      }
      if (query.chosen && !query.chosen(row)) continue;
      newest.push_back(row);
      if (newest.size() > query.limit) newest.pop_front();
    }
    if (more) page.after = rows.back().exchange;
  }
  std::vector<TransactionView> views;
  for (auto row = newest.rbegin(); row != newest.rend(); ++row) views.push_back(view_of_open(store, *row));
  return views;
}

bool in_doubt(store::Store& store, ExchangeId exchange) {
  const auto state = open_state(store, exchange);
  return state && *state == store::OpenState::in_doubt;
}

Status settle(store::Store& store, ExchangeId exchange, bool committed, const std::string& by,
              const std::string& reason) {
  if (reason.empty())
    return fail(FailureKind::invalid_argument, "reason_required",
                "settling " + to_string(exchange) + ": say why, it is kept with the transaction");
  SLUICE_ASSIGN(const auto rows, store::ask_now(store, store::ReadJournal{exchange}));
  if (rows.empty()) {  // a plain command is over with its Commit; also fails when there was none
    SLUICE_ASSIGN(const auto plain, describe(store, exchange));
    return fail(FailureKind::precondition_failed, "not_in_doubt",
                "transaction " + to_string(exchange) + " is " + plain.outcome + "; only one in doubt can be settled");
  }
  SLUICE_ASSIGN(History history, fold(rows));
  SLUICE_ASSIGN(const auto open, open_state(store, exchange));
  if (history.ended || open != store::OpenState::in_doubt)
    return fail(FailureKind::precondition_failed, "not_in_doubt",
                "transaction " + to_string(exchange) + " is " + outcome_word(history, open) +
                    "; only one in doubt can be settled");
  const bool decided_commit = history.decided && history.decided->decision == Decision::commit;
  if (committed && !decided_commit)
    return fail(FailureKind::precondition_failed, "not_decided_commit",
                "transaction " + to_string(exchange) + " was not decided to commit: what it would have stored did "
                "not happen, so it cannot be settled as committed; settle it as aborted and set right outside what is left there");
  const EndKind kind = committed ? EndKind::committed : EndKind::aborted;
  store::Commit commit;
  commit.requires_.push_back({store::JournalAt{exchange, history.next_record}, "journal"});
  commit.then.push_back(
      store::JournalAppend{{exchange, history.next_record, encode_row(Settled{kind, by, reason})}});
  commit.then.push_back(store::OpenDelete{exchange});
  commit.then.push_back(store::AuditAppend{{.ns = history.begun.ns,
                                            .principal = by,
                                            .command = "sluice.tx.settle",
                                            .exchange = exchange,
                                            .detail = reason}});
  if (!history.begun.scope.empty()) {
    store::KeyPut put;
    put.row.exchange = exchange;
    put.row.scope = history.begun.scope;
    put.row.fingerprint = history.begun.fingerprint;
    put.row.state = store::KeyState::completed;
    put.row.token = history.begun.key_token;
    put.ttl = milliseconds(history.begun.key_ttl_ms);
    // Settling speaks about the stages outside. The reply is that of the decision, whose effects stand.
    put.row.reply = history.decided && !history.decided->reply.empty() ? history.decided->reply
                    : decided_commit
                        ? Reply::ok({}).encode()
                        : Reply::from(Failure(FailureKind::rejected, "settled_aborted", reason)).encode();
    commit.then.push_back(std::move(put));
  }
  SLUICE_ASSIGN(const auto outcome, store::commit_and_wait(store, std::move(commit)));
  if (!outcome.applied)
    return fail(FailureKind::version_conflict, "settled_meanwhile",
                "transaction " + to_string(exchange) + " changed meanwhile; look at it again");
  return {};
}

}  // namespace sluice::flow
