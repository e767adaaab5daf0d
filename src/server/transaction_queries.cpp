#include "server/transaction_queries.hpp"


namespace sluice::server {

namespace {
// Of transactions of other apps, for one answer with transactions.
constexpr int kPagesLookedAt = 16;
// No audit row waits longer than this for being written.
constexpr milliseconds kYoung{10'000};
}  // namespace

// What a reply has shown is found at once, also while its audit row waits to be written: of the two
// batches that there may be of those, each empty Commit waits for one.
Result<flow::TransactionView> TransactionQueries::look_up(ExchangeId exchange) const {
  auto view = flow::describe(store_, exchange, &flows_);
  const bool young = clock_.wall() < IdSource::time_of(exchange.value) + kYoung;
  for (int batch = 0; batch < 2 && young && !view && view.error().kind() == FailureKind::not_found; ++batch) {
    SLUICE_TRY(store::commit_and_wait(store_, {}));
    view = flow::describe(store_, exchange, &flows_);
  }
  if (view && !view->audit) {
    SLUICE_ASSIGN(view->audit, flow::audit_of(store_, exchange));
  }
  return view;
}

void TransactionQueries::answer(const transport::TransactionQuery& query, transport::RespondJson respond) {
  Result<std::string> late = fail(FailureKind::timeout, "no_answer_in_time", "the database did not answer before the deadline; ask again");
  auto waiting = Waiting::wait(*query.lane, query.deadline, std::move(late), std::move(respond));
  reader_.post([this, query, waiting = std::move(waiting)]() mutable {
    if (!waiting->too_late()) Waiting::give(std::move(waiting), query.exchange ? one(query) : list(query));
  });
}

// The app is the transaction's own, whatever the request named.
bool TransactionQueries::may_see(const transport::TransactionQuery& query, std::string_view of) {
  const auto ns = Namespace::parse(of);
  return query.principal != nullptr && query.principal->may(ns ? ns->app() : of, "transactions.read");
}

Result<std::string> TransactionQueries::one(const transport::TransactionQuery& query) const {
  SLUICE_ASSIGN(const auto view, look_up(query.exchange));
  if (!may_see(query, view.ns))
    return fail(FailureKind::forbidden, "forbidden", "this token does not grant transactions.read for the app of this transaction");
  return transaction_json(view);
}

// What is not shown makes room for older ones, through so many pages.
Result<std::vector<flow::TransactionView>> TransactionQueries::newest(const transport::TransactionQuery& query) const {
  // Commands without keys only read, or end at once; they are found by id, and would crowd the list.
  const auto has_key = [this](const store::AuditRow& row) {
    const auto spec = registry_.find(row.command);
    return !spec || (*spec)->idempotency != rpc::KeyUse::none;
  };
  const auto hidden = [&query](const auto& view) { return !may_see(query, view.ns); };
  SLUICE_ASSIGN(auto views, flow::list_transactions(store_, query.before, query.limit, has_key));
  for (int page = 0; page < kPagesLookedAt; ++page) {
    const bool last = views.size() < query.limit;
    const ExchangeId oldest = views.empty() ? ExchangeId{} : views.back().exchange;
    if (std::erase_if(views, hidden) == 0 || last) break;
    SLUICE_ASSIGN(auto older, flow::list_transactions(store_, oldest, query.limit, has_key));
    for (auto& view : older) views.push_back(std::move(view));
  }
  std::erase_if(views, hidden);
  if (views.size() > query.limit) views.resize(query.limit);
  return views;
}

Result<std::vector<flow::TransactionView>> TransactionQueries::open(const transport::TransactionQuery& query) const {
  flow::OpenQuery open{.state = {}, .before = query.before, .limit = query.limit, .chosen = [&query](const store::OpenRow& row) {
                         return may_see(query, row.ns);
                       }};
  if (query.state == "in_doubt") open.state = store::OpenState::in_doubt;
  if (query.state == "paused") open.state = store::OpenState::paused;
  return flow::list_open(store_, open);
}

Result<std::string> TransactionQueries::list(const transport::TransactionQuery& query) const {
  SLUICE_ASSIGN(const auto views, query.state.empty() ? newest(query) : open(query));
  std::string text = "{\"transactions\":[";
  for (const auto& view : views) {
    if (text.back() != '[') text += ',';
    text += transaction_json(view);
  }
  return text + "]}";
}

}  // namespace sluice::server
