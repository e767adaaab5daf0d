// A stage that reaches outside: a shop holds money at a bank it only knows over the network, and
// ships in the same transaction. What happens when the shop declines, when the bank's answer is
// lost, and when nobody can say any more what the bank did.
#include <cstdio>
#include <future>
#include <map>
#include <sluice/base/runtime.hpp>
#include <sluice/flow.hpp>
#include <sluice/store/sqlite.hpp>
#include <utility>

using namespace sluice;

// The other side; here it only pretends to be far away. It knows each request by its key, so a
// request that comes twice counts once.
struct Bank {
  std::map<std::string, int> held;  // by key
  int taken = 0;
  bool loses_an_answer = false;
  bool down = false;

  Status hold(const std::string& key, int amount) {
    held[key] = amount;
    return {};
  }
  Status take(const std::string& key) {
    if (down) return fail(FailureKind::unavailable, "bank_down", "connection refused");
    const auto hold = held.find(key);
    if (hold != held.end()) taken += hold->second, held.erase(hold);
    if (!std::exchange(loses_an_answer, false)) return {};
    return fail(FailureKind::unknown_outcome, "answer_lost",
                "the connection closed after the request");
  }
  Status release(const std::string& key) { return held.erase(key), Status(); }
};

int main() {
  RealClock clock;
  RealRandom random;
  RealExecutor executor{clock};
  LaneThread lane{clock};
  auto store = store::open_sqlite_store({.path = "card_hold.db"}, clock, random, executor);
  if (!store) return std::fprintf(stderr, "%s\n", store.error().to_string().c_str()), 1;

  Bank bank;
  const store::KvKey stock{"shop", "stock", "book"};
  flow::FlowOptions options;
  options.store = store->get();
  options.second_phase.attempts = 3;  // then the order is in doubt, for recovery and the operator
  flow::Flow order("order", std::move(options));
  flow::Phases card;
  // An intent is durable before this runs: killed at any instant, the next start calls abort.
  card.prepare = [&](flow::Exchange& x) -> Result<flow::Vote> {
    SLUICE_TRY(bank.hold(x.token(), 20));  // the token is the same in every phase and after a crash
    return flow::Vote::continue_();
  };
  // Both are called until they succeed, so maybe more than once: the key makes that harmless.
  card.commit = [&](flow::Exchange& x) { return bank.take(x.token()); };
  card.abort = [&](flow::Exchange& x, bool /*prepared*/) { return bank.release(x.token()); };
  auto ship = [&](flow::Exchange& x) -> Result<flow::Vote> {
    x.draft().take(stock, 1, "sold_out");
    x.respond(Reply::ok(R"({"shipped":1})"));
    return flow::Vote::continue_();
  };
  order.group("main", {flow::phases("card", flow::Effect::external, std::move(card)),
                       flow::func("ship", ship)});
  for (const auto& defect : order.lint()) std::printf("lint: %s\n", defect.c_str());

  store::Commit opening;
  opening.then = {store::KvPut{stock, "", 3}};
  if (!commit_and_wait(**store, std::move(opening))) return 1;
  IdSource ids(clock, 1);
  ids.advance_past((*store)->largest_id());
  ExchangeId last;
  auto buy = [&](const char* what) {
    auto exchange =
        std::make_shared<flow::Exchange>(last = ids.exchange(), Namespace("shop"), "{}");
    const flow::Outcome outcome = block_on(lane, order.run(exchange));
    std::printf("%s: %s; the bank took %d and holds %zu\n", what, to_string(outcome.kind).data(),
                bank.taken, bank.held.size());
  };
  buy("all is well");
  bank.loses_an_answer = true;
  buy("an answer is lost");  // commit is called again with the same key: taken once
  bank.down = true;
  buy("the bank is down");  // decided and shipped, but not paid: in doubt, never guessed
  bank.down = false;
  // Who looks at the list (here, `sluice tx list --state in_doubt`) finds it within a second.
  auto listed = [](store::Store& of) -> Task<int> {
    while (flow::list_in_doubt(of, 1).value().empty()) co_await sleep_for(milliseconds(5));
    co_return 0;
  };
  block_on(lane, listed(**store));
  flow::Flows flows;  // the rest is what a server does at its start and every 30 seconds
  flows.add(order);
  flow::Recovery recovery(**store, flows, lane.lane());
  std::promise<std::uint64_t> swept;
  lane.lane().post([&] {
    recovery.start([&](const Result<flow::RecoveryProgress>& progress) {
      const std::uint64_t committed = progress ? progress->committed : 0;
      lane.lane().post([&swept, committed] { swept.set_value(committed); });
    });
  });
  const auto committed = static_cast<int>(swept.get_future().get());
  std::printf("after a sweep: %d order went on; the bank took %d and holds %zu\n", committed,
              bank.taken, bank.held.size());
  buy("sold out");  // the shop declines after the hold: it is released
}
