// What every store does, whatever it keeps its rows in.
#include "store/store_fixture.hpp"

namespace sluice::store {
namespace {

INSTANTIATE_TEST_SUITE_P(Every, StoreConformance, testing::Values(Backend::memory, Backend::sqlite, Backend::postgres),
                         backend_name);

Bytes scope(const std::string& key) { return "scope:" + key; }

KeyPut completed(const std::string& key, std::uint64_t exchange, Bytes reply,
                 milliseconds ttl = std::chrono::hours(1)) {
  return {{.exchange = {exchange}, .scope = scope(key), .state = KeyState::completed, .reply = std::move(reply)},
          ttl};
}
KeyPut claim(const std::string& key, std::uint64_t exchange, milliseconds ttl) {
  return {{.exchange = {exchange}, .scope = scope(key), .state = KeyState::claimed}, ttl};
}

TEST_P(StoreConformance, FLOW_25_a_commit_is_applied_whole) {
  must({.then = {KvPut{at("a"), "one", 5}, KvAdd{at("b"), 7}, JournalAppend{{{9}, 0, "record"}}}});
  EXPECT_EQ(row("a"), (KvRow{1, 5, "one"}));
  EXPECT_EQ(row("b"), (KvRow{1, 7, ""}));
  EXPECT_EQ(ask_now(*store, ReadJournal{{9}})->at(0).record, "record");
}

TEST_P(StoreConformance, FLOW_25_a_refused_commit_changes_nothing_and_names_the_precondition) {
  must({.then = {KvAdd{at("stock"), 3}}});
  const auto outcome = must({.requires_ = {needs(KvExists{at("stock")}, "exists"),
                                           needs(KvAtLeast{at("stock"), 4}, "sold_out")},
                             .then = {KvAdd{at("stock"), -4}, KvPut{at("other"), "x", {}}}});
  EXPECT_FALSE(outcome.applied);
  EXPECT_EQ(outcome.refused, 1);
  EXPECT_EQ(outcome.observed, 3);
  EXPECT_EQ(row("stock")->number, 3);
  EXPECT_FALSE(row("other"));
}

TEST_P(StoreConformance, FLOW_25_a_number_that_would_leave_64_bits_refuses_the_whole_commit) {
  must({.then = {KvPut{at("big"), "", INT64_MAX - 5}, KvPut{at("small"), "", INT64_MIN + 5}}});
  for (const auto& [key, delta] : {std::pair<std::string, std::int64_t>{"big", 6}, {"small", -6}}) {
    auto outcome = commit_and_wait(*store, {.then = {KvAdd{at("other"), 1}, KvAdd{at(key), delta}}});
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code(), "number_overflow");
    EXPECT_NE(outcome.error().detail().find(key), std::string_view::npos);
    EXPECT_FALSE(row("other"));
  }
  auto sum = commit_and_wait(*store, {.then = {KvAdd{at("big"), 3}, KvAdd{at("big"), 3}}});
  EXPECT_FALSE(sum) << "the changes of one commit add up";
  must({.then = {KvDelete{at("big")}, KvAdd{at("big"), INT64_MAX}}});
  EXPECT_EQ(row("big")->number, INT64_MAX);
  must({.then = {KvAdd{at("small"), -5}}});
  EXPECT_EQ(row("small")->number, INT64_MIN);
}

TEST_P(StoreConformance, a_rows_version_grows_by_one_per_commit_however_often_it_is_touched) {
  must({.then = {KvPut{at("a"), "1", {}}, KvAdd{at("a"), 1}, KvAdd{at("a"), 1}}});
  EXPECT_EQ(row("a")->version, 1u);
  must({.then = {KvAdd{at("a"), 1}, KvPut{at("a"), "2", {}}}});
  EXPECT_EQ(row("a")->version, 2u);
  must({.then = {KvAdd{at("a"), 1}}});
  EXPECT_EQ(row("a")->version, 3u);
}

TEST_P(StoreConformance, no_id_that_stands_anywhere_is_given_out_again_after_a_restart) {
  if (GetParam() == Backend::memory) GTEST_SKIP() << "nothing is left of it";
  std::uint64_t id = 1000;
  const auto reopened = [&] {
    store->close();
    store.reset();
    store = rig.open(GetParam());
    return store->largest_id();
  };
  must({.then = {OpenPut{{.exchange = {++id}, .ns = "app", .flow = "f"}}}});
  EXPECT_GE(reopened(), id);
  must({.then = {AuditAppend{{.ns = "app", .command = "c", .exchange = {++id}}}}});
  EXPECT_GE(reopened(), id);
  must({.then = {EventAppend{{.id = {++id}, .ns = "a", .topic = "t"}}, EventAppend{{.id = {++id}, .ns = "b", .topic = "t"}},
                 EventAppend{{.id = {id - 1}, .ns = "c", .topic = "t"}}}});
  EXPECT_GE(reopened(), id);
  must({.then = {JournalAppend{{{++id}, 0, "r"}}}});
  EXPECT_GE(reopened(), id);
  must({.then = {completed("k", ++id, "reply")}});
  EXPECT_GE(reopened(), id);
}

TEST_P(StoreConformance, the_branch_of_the_first_failed_precondition_is_applied) {
  const auto outcome = must({.requires_ = {needs(KvExists{at("a")}, "first", 1),
                                           needs(KvExists{at("b")}, "second", 0)},
                             .then = {KvPut{at("then"), "", {}}},
                             .otherwise = {{KvPut{at("zero"), "", {}}}, {KvPut{at("one"), "", {}}}}});
  EXPECT_EQ(outcome.refused, 0);
  EXPECT_TRUE(row("one"));
  EXPECT_FALSE(row("zero"));
  EXPECT_FALSE(row("then"));
}

TEST_P(StoreConformance, a_branch_that_does_not_exist_is_the_submitters_defect) {
  auto outcome = commit_and_wait(*store, {.requires_ = {needs(KvExists{at("a")}, "x", 3)}});
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().kind(), FailureKind::invalid_argument);
}

TEST_P(StoreConformance, each_precondition_on_rows_holds_and_fails_as_it_says) {
  must({.then = {KvPut{at("a"), "v", 10}}});
  const auto holds = [&](Precondition what) { return must({.requires_ = {needs(std::move(what), "p")}}).applied; };
  EXPECT_TRUE(holds(KvVersionIs{at("a"), 1}));
  EXPECT_FALSE(holds(KvVersionIs{at("a"), 0}));
  EXPECT_TRUE(holds(KvVersionIs{at("none"), 0}));
  EXPECT_TRUE(holds(KvAtLeast{at("a"), 10}));
  EXPECT_FALSE(holds(KvAtLeast{at("a"), 11}));
  EXPECT_TRUE(holds(KvAtMost{at("a"), 10}));
  EXPECT_FALSE(holds(KvAtMost{at("a"), 9}));
  EXPECT_TRUE(holds(KvAtMost{at("none"), 0}));
  EXPECT_FALSE(holds(KvExists{at("none")}));
}

TEST_P(StoreConformance, versions_count_commits_and_deletes_remove) {
  must({.then = {KvPut{at("a"), "1", {}}}});
  must({.then = {KvAdd{at("a"), 1}}});
  EXPECT_EQ(row("a")->version, 2u);
  EXPECT_EQ(row("a")->value, "1");
  must({.then = {KvDelete{at("a")}}});
  EXPECT_FALSE(row("a"));
}

TEST_P(StoreConformance, IDEM_3_the_second_of_one_key_gets_the_first_ones_row) {
  must({.requires_ = {needs(KeyFree{scope("k")}, "key")}, .then = {completed("k", 1, "first")}});
  const auto outcome =
      must({.requires_ = {needs(KeyFree{scope("k")}, "key")}, .then = {completed("k", 2, "second")}});
  EXPECT_FALSE(outcome.applied);
  ASSERT_TRUE(outcome.key);
  EXPECT_EQ(outcome.key->reply, "first");
  EXPECT_EQ((*ask_now(*store, FindKey{scope("k")}))->exchange, ExchangeId{1});
}

TEST_P(StoreConformance, VOUCHER_5_a_key_fits_its_own_fingerprint_and_none_else_until_it_expires) {
  const auto with = [](std::string_view print) {
    return KeyPut{{.exchange = {1}, .scope = scope("whole"), .fingerprint = sha256(print), .state = KeyState::completed}, milliseconds(1000)};
  };
  const auto write = [&](std::string_view print) {
    return must({.requires_ = {needs(KeyFits{scope("whole"), sha256(print)}, "fits")}, .then = {with(print)}});
  };
  EXPECT_TRUE(write("one").applied) << "nobody's so far";
  rig.clock.advance(milliseconds(600));
  EXPECT_TRUE(write("one").applied);
  const auto other = write("other");
  EXPECT_FALSE(other.applied);
  ASSERT_TRUE(other.key);
  EXPECT_EQ(other.key->fingerprint, sha256("one"));
  rig.clock.advance(milliseconds(999));
  EXPECT_FALSE(write("other").applied) << "it lives as long as it was written last";
  rig.clock.advance(milliseconds(1));
  EXPECT_TRUE(write("other").applied);
}

TEST_P(StoreConformance, IDEM_8_an_expired_key_is_free_and_reads_as_absent) {
  must({.then = {completed("k", 1, "old", milliseconds(1000))}});
  rig.clock.advance(milliseconds(999));
  EXPECT_TRUE(ask_now(*store, FindKey{scope("k")})->has_value());
  rig.clock.advance(milliseconds(1));
  EXPECT_FALSE(ask_now(*store, FindKey{scope("k")})->has_value());
  must({.requires_ = {needs(KeyFree{scope("k")}, "key")}, .then = {completed("k", 2, "new")}});
  EXPECT_EQ((*ask_now(*store, FindKey{scope("k")}))->reply, "new");
}

TEST_P(StoreConformance, IDEM_8_a_life_without_end_does_not_overflow) {
  must({.then = {KeyPut{{.exchange = {1}, .scope = "s", .state = KeyState::completed, .reply = "r"}, milliseconds::max()}}});
  EXPECT_FALSE(must({.requires_ = {needs(KeyFree{"s"}, "free")}}).applied) << "it would run twice";
  const auto found = ask_now(*store, FindKey{"s"});
  ASSERT_TRUE(found && *found);
  EXPECT_EQ((*found)->expires_at, WallTime::max());
}

TEST_P(StoreConformance, IDEM_10_a_takeover_raises_the_token_and_shuts_out_the_old_owner) {
  must({.then = {claim("k", 1, milliseconds(100))}});
  rig.clock.advance(milliseconds(100));
  must({.requires_ = {needs(KeyFree{scope("k")}, "key")}, .then = {claim("k", 2, milliseconds(100))}});
  const auto row = *ask_now(*store, FindKey{scope("k")});
  EXPECT_EQ(row->token, 2u);
  const auto late = must({.requires_ = {needs(KeyHeldBy{scope("k"), {1}, 1}, "held")},
                          .then = {completed("k", 1, "late")}});
  EXPECT_FALSE(late.applied);
  EXPECT_TRUE(must({.requires_ = {needs(KeyHeldBy{scope("k"), {2}, 2}, "held")},
                    .then = {completed("k", 2, "done")}}).applied);
}

TEST_P(StoreConformance, IDEM_13_a_released_key_is_gone_in_every_store) {
  must({.then = {claim("k", 1, milliseconds(1000))}});
  must({.then = {KeyDelete{scope("k")}}});
  EXPECT_FALSE(ask_now(*store, FindKey{scope("k")})->has_value());
}

TEST_P(StoreConformance, journal_records_have_no_gaps_and_no_doubles) {
  must({.then = {JournalAppend{{{5}, 0, "a"}}, JournalAppend{{{5}, 1, "b"}}}});
  auto gap = commit_and_wait(*store, {.then = {JournalAppend{{{5}, 3, "d"}}, KvPut{at("x"), "", {}}}});
  ASSERT_FALSE(gap);
  EXPECT_EQ(gap.error().code(), "journal_gap");
  EXPECT_FALSE(row("x"));
  EXPECT_FALSE(must({.requires_ = {needs(JournalAt{{5}, 1}, "at")}}).applied);
  EXPECT_TRUE(must({.requires_ = {needs(JournalAt{{5}, 2}, "at")}, .then = {JournalAppend{{{5}, 2, "c"}}}}).applied);
  EXPECT_EQ(ask_now(*store, ReadJournal{{5}})->size(), 3u);
}

TEST_P(StoreConformance, listings_page_newest_or_oldest_first) {
  for (std::uint64_t id = 1; id <= 5; ++id)
    must({.then = {JournalAppend{{{id}, 0, std::to_string(id)}},
                   OpenPut{{.exchange = {id}, .ns = "app", .flow = "f", .state = id % 2 ? OpenState::running : OpenState::in_doubt}}}});
  const auto newest = *ask_now(*store, ListJournal{{}, 2});
  ASSERT_EQ(newest.size(), 2u);
  EXPECT_EQ(newest[0].exchange, ExchangeId{5});
  EXPECT_EQ(ask_now(*store, ListJournal{{4}, 9})->size(), 3u);
  EXPECT_EQ(ask_now(*store, ListOpen{{}, OpenState::in_doubt, 9})->size(), 2u);
  EXPECT_EQ(ask_now(*store, ListOpen{{2}, {}, 9})->front().exchange, ExchangeId{3});
  must({.then = {OpenDelete{{3}}}});
  EXPECT_EQ(ask_now(*store, ListOpen{{}, {}, 9})->size(), 4u);
}

TEST_P(StoreConformance, an_open_row_keeps_since_when_it_changes) {
  must({.then = {OpenPut{{.exchange = {1}, .ns = "app", .flow = "f"}}}});
  const auto since = ask_now(*store, ListOpen{})->front().since;
  rig.clock.advance(seconds(5));
  must({.then = {OpenPut{{.exchange = {1}, .ns = "app", .flow = "f", .state = OpenState::in_doubt}}}});
  EXPECT_EQ(ask_now(*store, ListOpen{})->front().since, since);
}

TEST_P(StoreConformance, rows_list_in_order_within_prefix_and_page) {
  for (const char* key : {"a/1", "a/2", "a/3", "b/1"}) must({.then = {KvPut{at(key), key, {}}}});
  const auto page = *ask_now(*store, ListRows{"app", "things", "a/", "a/1", 10});
  ASSERT_EQ(page.size(), 2u);
  EXPECT_EQ(page[0].key.key, "a/2");
  EXPECT_EQ(ask_now(*store, ListRows{"app", "things", "", "", 3})->size(), 3u);
  EXPECT_TRUE(ask_now(*store, ListRows{"app", "nothing", "", "", 3})->empty());
}

TEST_P(StoreConformance, events_are_numbered_without_gaps_per_namespace) {
  for (int i = 0; i < 3; ++i)
    must({.then = {EventAppend{{.id = {10u + i}, .ns = "app", .topic = "t", .payload = "p"}},
                   EventAppend{{.id = {20u + i}, .ns = "other", .topic = "t"}}}});
  const auto events = *ask_now(*store, ListEvents{"app", 1, 10});
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].sequence, 2u);
  EXPECT_EQ(events[1].sequence, 3u);
}

TEST_P(StoreConformance, audit_rows_are_numbered_and_read_newest_first) {
  must({.then = {AuditAppend{{.principal = "ann", .command = "c"}}, AuditAppend{{.principal = "bob"}}}});
  const auto rows = *ask_now(*store, ListAudit{});
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].principal, "bob");
  EXPECT_GT(rows[0].sequence, rows[1].sequence);
  EXPECT_EQ(rows[0].at, store->now());
}

TEST_P(StoreConformance, NODE_3_a_lease_has_one_owner_and_a_growing_token) {
  const auto take = [&](const std::string& owner) {
    return must({.requires_ = {needs(LeaseFree{"sweep", owner}, "lease")},
                 .then = {LeaseTake{"sweep", owner, milliseconds(1000)}}});
  };
  EXPECT_EQ(take("one").lease->token, 1u);
  EXPECT_FALSE(take("two").applied);
  EXPECT_EQ(take("one").lease->token, 1u) << "renewal keeps the token";
  rig.clock.advance(milliseconds(1000));
  EXPECT_EQ(take("two").lease->token, 2u);
  EXPECT_FALSE(must({.requires_ = {needs(Fence{"sweep", 1}, "fence")}}).applied);
  EXPECT_TRUE(must({.requires_ = {needs(Fence{"sweep", 2}, "fence")}}).applied);
  must({.then = {LeaseDrop{"sweep"}}});
  EXPECT_FALSE(must({.requires_ = {needs(Fence{"sweep", 2}, "fence")}}).applied);
  EXPECT_EQ(take("one").lease->token, 3u) << "tokens grow even when the lease was dropped";
}

TEST_P(StoreConformance, purge_removes_what_expired_and_what_is_old_but_nothing_open) {
  IdSource ids(rig.clock, 1);
  const auto old = ids.exchange(), open = ids.exchange();
  must({.then = {completed("short", old.value, "r", milliseconds(10)), completed("long", open.value, "r", std::chrono::hours(48)),
                 JournalAppend{{old, 0, "x"}}, JournalAppend{{open, 0, "y"}},
                 OpenPut{{.exchange = open, .ns = "app", .flow = "f"}}}});
  rig.clock.advance(std::chrono::hours(2));
  const auto result = store->purge(std::chrono::hours(1), 100);
  ASSERT_TRUE(result) << result.error().to_string();
  EXPECT_EQ(result->keys, 1u);
  EXPECT_EQ(result->journal, 1u);
  EXPECT_TRUE(ask_now(*store, FindKey{scope("long")})->has_value());
  EXPECT_EQ(ask_now(*store, ReadJournal{open})->size(), 1u);
}

TEST_P(StoreConformance, G3_purge_takes_a_journal_whole_or_leaves_it) {
  IdSource ids(rig.clock, 1);
  std::vector<ExchangeId> all;
  for (int i = 0; i < 4; ++i) {
    all.push_back(ids.exchange());
    for (std::uint32_t n = 0; n < 3; ++n) must({.then = {JournalAppend{{all.back(), n, "x"}}}});
  }
  rig.clock.advance(std::chrono::hours(2));
  bool left_some = false, more = true;
  for (int turn = 0; turn < 10 && more; ++turn) {
    const auto result = store->purge(std::chrono::hours(1), 2);
    ASSERT_TRUE(result) << result.error().to_string();
    more = result->more;
    for (const auto exchange : all) {
      const auto rows = ask_now(*store, ReadJournal{exchange})->size();
      EXPECT_TRUE(rows == 0 || rows == 3) << rows << " records are left";
      left_some = left_some || rows != 0;
    }
    if (auto* sqlite = dynamic_cast<SqliteStore*>(store.get())) EXPECT_TRUE(sqlite->integrity_check());
    if (auto* postgres = dynamic_cast<PostgresStore*>(store.get())) EXPECT_TRUE(postgres->integrity_check());
  }
  EXPECT_TRUE(left_some) << "a batch has a bound";
  EXPECT_FALSE(more);
  EXPECT_EQ(ask_now(*store, ReadJournal{all.back()})->size(), 0u);
}

TEST_P(StoreConformance, largest_id_is_at_least_every_stored_id) {
  must({.then = {JournalAppend{{{77}, 0, "x"}}, completed("k", 99, "r")}});
  if (GetParam() != Backend::memory) {
    store.reset();
    store = rig.open(GetParam());
  }
  EXPECT_GE(store->largest_id(), 99u);
}

class Doubling final : public Expander {
 public:
  Status expand(const std::vector<Mutation>& applied, std::vector<Mutation>& more) override {
    for (const auto& mutation : applied)
      if (const auto* put = std::get_if<KvPut>(&mutation)) {
        if (put->value == "refuse") return fail(FailureKind::rejected, "no", "the expander refused");
        more.push_back(EventAppend{{.id = {1}, .ns = put->key.ns, .topic = "changed"}});
      }
    return {};
  }
};

TEST_P(StoreConformance, EVENT_1_the_expander_adds_to_the_same_commit_or_refuses_it) {
  Doubling expander;
  store->set_expander(&expander);
  must({.then = {KvPut{at("a"), "v", {}}}});
  EXPECT_EQ(ask_now(*store, ListEvents{"app", 0, 10})->size(), 1u);
  auto refused = commit_and_wait(*store, {.then = {KvPut{at("b"), "refuse", {}}}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), "no");
  EXPECT_FALSE(row("b"));
}

TEST_P(StoreConformance, after_close_everything_is_refused_as_unavailable) {
  store->close();
  store->close();
  auto outcome = commit_and_wait(*store, {.then = {KvAdd{at("a"), 1}}});
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().kind(), FailureKind::unavailable);
  EXPECT_FALSE(store->health());
}

// Many Commits wait together; the winners are exact, in order of arrival.
TEST_P(StoreConformance, VOUCHER_7_waiting_decrements_of_one_row_are_exact) {
  constexpr int kBuyers = 500, kStock = 100;
  must({.then = {KvAdd{at("stock"), kStock}}});
  struct Buyer : PendingCommit {
    std::atomic<int>* left = nullptr;
    Parker* done = nullptr;
  };
  std::vector<Buyer> buyers(kBuyers);
  std::atomic<int> left{kBuyers};
  Parker done;
  for (auto& buyer : buyers) {
    buyer.left = &left;
    buyer.done = &done;
    buyer.commit = {.requires_ = {needs(KvAtLeast{at("stock"), 1}, "sold_out")}, .then = {KvAdd{at("stock"), -1}}};
    buyer.run = [](Job* job) noexcept {
      auto* self = static_cast<Buyer*>(static_cast<PendingCommit*>(job));
      if (--*self->left == 0) self->done->wake();
    };
    store->submit(buyer);
  }
  done.park();
  int winners = 0;
  for (int i = 0; i < kBuyers; ++i) {
    ASSERT_TRUE(buyers[static_cast<std::size_t>(i)].outcome);
    const bool applied = buyers[static_cast<std::size_t>(i)].outcome->applied;
    EXPECT_EQ(applied, i < kStock) << "buyer " << i;
    winners += applied;
  }
  EXPECT_EQ(winners, kStock);
  EXPECT_EQ(row("stock")->number, 0);
}

}  // namespace
}  // namespace sluice::store
