#include "server/transaction_queries.hpp"

#include <functional>


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

void TransactionQueries::answer(const transport::TransactionQuery& query, transport::RespondJson respond) const {
  Result<std::string> json;
  // The app is the transaction's own, whatever the request named.
  const auto may_see = [&](const auto& view) {  // or a row
    const auto ns = Namespace::parse(view.ns);
    return query.principal != nullptr && query.principal->may(ns ? ns->app() : std::string_view(view.ns), "transactions.read");
  };
  if (query.exchange) {
    const auto view = look_up(query.exchange);
    if (view && !may_see(*view))
      json = fail(FailureKind::forbidden, "forbidden", "this token does not grant transactions.read for the app of this transaction");
    else
      json = view ? Result<std::string>(transaction_json(*view)) : fail(view.error());
  } else {
    // Commands without keys only read, or end at once; they are found by id, and would crowd the list.
    const auto has_key = [this](const store::AuditRow& row) {
      const auto spec = registry_.find(row.command);
      return !spec || (*spec)->idempotency != rpc::KeyUse::none;
    };
    flow::OpenQuery open{.state = {}, .before = query.before, .limit = query.limit, .chosen = may_see};
    if (query.state == "in_doubt") open.state = store::OpenState::in_doubt;
    if (query.state == "paused") open.state = store::OpenState::paused;
    auto list = query.state.empty() ? flow::list_transactions(store_, query.before, query.limit, has_key)
                                    : flow::list_open(store_, open);
    // What is not shown makes room for older ones, through so many pages.
    for (int page = 0; list && query.state.empty() && page < kPagesLookedAt; ++page) {
      const bool last = list->size() < query.limit;
      const ExchangeId oldest = list->empty() ? ExchangeId{} : list->back().exchange;
      if (std::erase_if(*list, std::not_fn(may_see)) == 0 || last) break;
      auto older = flow::list_transactions(store_, oldest, query.limit, has_key);
      if (!older) {
        list = fail(older.error());
        break;
      }
      for (auto& view : *older) list->push_back(std::move(view));
    }
    if (list) {
      std::erase_if(*list, std::not_fn(may_see));
      if (list->size() > query.limit) list->resize(query.limit);
    }
    if (!list) {
      json = fail(list.error());
    } else {
      std::string text = "{\"transactions\":[";
      for (const auto& view : *list) {
        if (text.back() != '[') text += ',';
        text += transaction_json(view);
      }
      json = text + "]}";
    }
  }
  query.lane->post([respond = std::move(respond), json = std::move(json)]() mutable {
    respond(std::move(json));
  });
}

}  // namespace sluice::server
