// What the registry leaves in the audit trail of what did not run, and how it writes it.
#include "sentences_fixture.hpp"

namespace sluice::rpc {
namespace {

// Rows that come as fast as they are written, to a store that answers at once.
TEST_F(RegistrySentences, G6_the_audit_log_does_not_call_itself_deeper_with_each_batch) {
  constexpr int kRows = 200'000;
  int added = 0;
  store::AuditRow row;
  row.ns = "shop";
  store.before = [&] {
    if (++added < kRows) registry->audit(row);
  };
  registry->audit(row);
  store.before = nullptr;
  EXPECT_EQ(added, kRows);
  EXPECT_EQ(registry->stats().audit_lost, 0u);
  const auto newest = store::ask_now(*inner, store::ListAudit{.before = 0, .limit = 1});
  ASSERT_EQ(newest->size(), 1u);
  EXPECT_EQ(newest->at(0).sequence, static_cast<std::uint64_t>(kRows));
}

// Who has no token writes a row a second at most, and the next says how many there were.
TEST_F(RegistrySentences, CONSOLE_6_G6_what_strangers_are_refused_is_counted_and_bounded_in_rows) {
  ASSERT_TRUE(registry->add(spec([](Invocation& i) { i.finish(Answer::of(Reply::ok("{}"))); })));
  const auto denied = [&] {
    std::vector<std::string> details;
    for (const auto& row : *store::ask_now(*inner, store::ListAudit{}))
      if (row.outcome == store::AuditOutcome::denied) details.push_back(row.principal + "|" + row.detail);
    std::ranges::reverse(details);  // oldest first
    return details;
  };
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(send({}, true).code(), "unauthenticated");
  EXPECT_EQ(denied(), std::vector<std::string>{"|unauthenticated"});
  clock.advance(seconds(1));
  send({}, true);
  EXPECT_EQ(denied().back(), "|unauthenticated, 999 more before");
  EXPECT_EQ(metrics.counter("sluice_requests_refused_total", "", {{"code", "unauthenticated"}, {"traffic", "live"}}).value(), 1001u);

  // A name known by a token that is no longer good has rows of its own, so bounded too.
  const Failure expired(FailureKind::unauthenticated, "expired_token", "");
  for (int i = 0; i < 3; ++i) {
    store::AuditRow row;
    row.principal = "till";
    row.command = "order.place\n" + std::string(1000, 'x');
    registry->refused(row, expired, true, "10.0.0.7", clock.now());
  }
  while (lane.run_ready() != 0) {
  }
  EXPECT_EQ(denied().back(), "till|expired_token from 10.0.0.7");
  EXPECT_EQ(denied().size(), 3u);
  const auto rows = store::ask_now(*inner, store::ListAudit{});
  EXPECT_EQ(rows->front().command, "order.place?" + std::string(68, 'x')) << "a stranger chooses these words";
}

TEST_F(RegistrySentences, CONSOLE_6_what_is_refused_before_it_runs_leaves_a_row_under_its_name) {
  ASSERT_TRUE(registry->add(spec([](Invocation& i) { i.finish(Answer::of(Reply::ok("{}"))); })));
  send(std::nullopt);
  send(std::string(256, 'k'));
  send("k", false, 7);
  std::vector<std::string> details;
  for (const auto& row : *store::ask_now(*inner, store::ListAudit{})) {
    EXPECT_EQ(row.outcome, store::AuditOutcome::error);
    EXPECT_EQ(row.principal, "ann");
    EXPECT_EQ(row.command, "order.place");
    details.push_back(row.detail);
  }
  EXPECT_EQ(details, (std::vector<std::string>{"unsupported_version", "bad_idempotency_key", "idempotency_key_required"}));
}

}  // namespace
}  // namespace sluice::rpc
