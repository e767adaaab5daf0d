// A flow that waits for a person: an expense sleeps until somebody approves it. While it sleeps it
// holds no thread; on disk it also sleeps through a restart, which this program plays.
#include <cstdio>
#include <sluice/base/runtime.hpp>
#include <sluice/flow.hpp>
#include <sluice/store/sqlite.hpp>

using namespace sluice;

// What the approver gets: an address to answer to. In a service this is a mail or a message.
std::string mailbox;

std::unique_ptr<flow::Flow> make_expense(store::Store& store) {
  flow::FlowOptions options;
  options.store = &store;
  auto expense = std::make_unique<flow::Flow>("expense", std::move(options));
  auto reserve = [](flow::Exchange& x) -> Result<flow::Vote> {
    x.draft().take({"office", "budget", "2026"}, 40, "over_budget");
    return flow::Vote::continue_();
  };
  flow::Awaited approval;
  approval.timeout = std::chrono::days(3);  // then it fails: timeout/no_answer
  approval.ask = [](flow::Exchange& x) -> Status {
    mailbox =
        x.token();  // the wake token, and the key under which a repeated mail is the same mail
    return {};
  };
  approval.answer = [](flow::Exchange& x, ByteView answer) -> Result<flow::Vote> {
    if (answer == "true") {
      x.respond(Reply::ok(R"({"approved":true})"));
      return flow::Vote::continue_();
    }
    x.respond(Reply::from(Failure(FailureKind::rejected, "not_approved", "")));
    x.abort("not_approved");
    return flow::Vote::continue_();
  };
  expense->group("main",
                 {flow::func("reserve", reserve),
                  flow::await_answer("approval", flow::Effect::store, std::move(approval))});
  return expense;
}

int main() {
  RealClock clock;
  RealRandom random;
  RealExecutor executor{clock};
  LaneThread lane{clock};
  auto store = store::open_sqlite_store({.path = "approval.db"}, clock, random, executor);
  if (!store) return std::fprintf(stderr, "%s\n", store.error().to_string().c_str()), 1;
  store::Commit opening;
  opening.then = {store::KvPut{{"office", "budget", "2026"}, "", 100}};
  if (!commit_and_wait(**store, std::move(opening))) return 1;
  IdSource ids(clock, 1);
  ids.advance_past((*store)->largest_id());
  auto left = [&] {
    auto rows = store::ask_now(**store, store::GetRows{{{"office", "budget", "2026"}}});
    return rows && rows->at(0) ? static_cast<int>(rows->at(0)->number) : -1;
  };

  for (const char* answer : {"true", "false"}) {
    const ExchangeId id = ids.exchange();
    {
      auto expense = make_expense(**store);
      auto exchange = std::make_shared<flow::Exchange>(id, Namespace("office"), "{}");
      // This caller is in a hurry: it is told `pending`, and the expense sleeps on.
      const Instant deadline = clock.now() + milliseconds(100);
      const flow::Outcome early = block_on(lane, expense->run(exchange), deadline);
      std::printf("asked: %s, the budget still reads %d\n", to_string(early.kind).data(), left());
    }  // the flow is gone, as it is after a crash

    auto expense = make_expense(**store);
    flow::Flows flows;
    flows.add(*expense);
    flow::Recovery recovery(**store, flows,
                            lane.lane());  // finds what sleeps; a server does this at its start
    auto recover = [](flow::Recovery& sweep) -> Task<int> {
      sweep.start([](const Result<flow::RecoveryProgress>&) {});
      while (sweep.progress().paused == 0) co_await sleep_for(milliseconds(1));
      co_return 0;
    };
    block_on(lane, recover(recovery));
    // In a service: the command sluice.tx.wake, given the token the mail holds.
    const Status woken = block_on(lane, expense->wake(Namespace("office"), mailbox, answer));
    if (!woken) return std::fprintf(stderr, "%s\n", woken.error().to_string().c_str()), 1;
    auto over = [](store::Store& of, ExchangeId one) -> Task<std::string> {
      for (;;) {
        if (auto view = flow::describe(of, one);
            view && view->outcome != "running" && view->outcome != "pending")
          co_return view->outcome;
        co_await sleep_for(milliseconds(1));
      }
    };
    const std::string outcome = block_on(lane, over(**store, id));
    std::printf("answered %s: %s, the budget reads %d\n", answer, outcome.c_str(), left());
  }
}
