// A first flow: move money between two accounts, whole or not at all, durable on return.
#include <cstdio>
#include <sluice/base/runtime.hpp>
#include <sluice/flow.hpp>
#include <sluice/store/sqlite.hpp>

using namespace sluice;

int main() {
  RealClock clock;
  RealRandom random;
  RealExecutor executor{clock};
  LaneThread lane{clock};
  auto store = store::open_sqlite_store({.path = "first.db"}, clock, random, executor);
  if (!store) return std::fprintf(stderr, "%s\n", store.error().to_string().c_str()), 1;

  const store::KvKey ann{"bank", "account", "ann"}, bob{"bank", "account", "bob"};
  flow::Flow transfer("transfer", {.store = store->get()});
  transfer.group("main", {flow::func("move", [&](flow::Exchange& x) -> Result<flow::Vote> {
    x.draft().take(ann, 10, "insufficient_funds");  // refused, by name, when ann has less
    x.draft().add(bob, 10);
    x.respond(Reply::ok(R"({"moved":10})"));
    return flow::Vote::continue_();
  })});

  store::Commit opening;
  opening.then = {store::KvPut{ann, "", 25}};
  if (!commit_and_wait(**store, std::move(opening))) return 1;
  IdSource ids(clock, 1);
  ids.advance_past((*store)->largest_id());
  for (int i = 0; i < 3; ++i) {
    auto exchange = std::make_shared<flow::Exchange>(ids.exchange(), Namespace("bank"), "{}");
    const flow::Outcome outcome = block_on(lane, transfer.run(exchange));
    std::printf("%s: %s\n", to_string(outcome.exchange).c_str(), to_string(outcome.kind).data());
  }
}
