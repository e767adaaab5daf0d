// The cache beside a dependency: what is fetched, how often, and who is harmed by whom.
#include <list>
#include <set>

#include "sim/scheduler.hpp"
#include "sluice/resilience/cache_aside.hpp"

namespace sluice::resilience {
namespace {

using Cache = CacheAside<std::string>;

struct CacheTest : testing::Test {
  sim::SimClock clock;
  sim::SimScheduler scheduler{clock, 1, nullptr, {.stall_one_in = 0}};
  sim::SimRandom random{1};
  Lane& lane = scheduler.add_lane("lane");
  std::vector<std::vector<std::string>> fetched;
  Duration latency = milliseconds(5);
  bool down = false;
  bool mute = false;
  bool throws = false;
  int version = 1;

  // Ids that begin with "no" do not exist, those with "bad" fail.
  Task<Result<std::vector<Cache::Found>>> fetch(std::vector<std::string> ids) {
    fetched.push_back(ids);
    const std::string suffix = "." + std::to_string(version);
    const FailureKind cut = co_await sleep_for(latency);
    if (cut != FailureKind::none) co_return fail(Failure(cut));
    if (throws) throw std::runtime_error("fetch threw");
    if (down) co_return fail(Failure(FailureKind::unavailable));
    std::vector<Cache::Found> found;
    for (const std::string& id : ids) {
      if (id.starts_with("bad"))
        found.push_back(fail(Failure(FailureKind::corrupt)));
      else if (id.starts_with("no"))
        found.push_back(std::optional<std::string>());
      else
        found.push_back(std::optional<std::string>(id + suffix));
    }
    if (mute) found.pop_back();
    co_return found;
  }
  Cache::Fetch fetcher() {
    return [this](std::vector<std::string> ids) { return fetch(std::move(ids)); };
  }
  std::vector<Cache::Found> get(Cache& cache, std::vector<std::string> ids) {
    return sim::run_task(scheduler, lane, cache.get(std::move(ids)));
  }
  struct Caller {
    Task<std::vector<Cache::Found>> task;
    CancelScope scope;
    TaskContext context;
    std::optional<std::vector<Cache::Found>> answer;
    static void done(void* self) noexcept {
      auto* caller = static_cast<Caller*>(self);
      caller->answer = caller->task.take();
    }
  };
  std::list<Caller> callers;
  Caller& ask(Cache& cache, std::vector<std::string> ids) {
    Caller& caller = callers.emplace_back();
    caller.context = {&lane, &caller.scope, kNever};
    caller.task = cache.get(std::move(ids));
    if (caller.task.start(caller.context, &Caller::done, &caller)) Caller::done(&caller);
    return caller;
  }
  void pass(Duration time) { scheduler.run_to(clock.now() + time, 100'000); }
};

TEST_F(CacheTest, RES_33_a_batch_fetches_only_what_is_missing_each_id_once) {
  Cache cache(lane, random, fetcher());
  get(cache, {"a", "b"});
  const auto answers = get(cache, {"c", "a", "c", "b", "d"});
  ASSERT_EQ(answers.size(), 5u);
  EXPECT_EQ(answers[0].value().value(), "c.1");
  EXPECT_EQ(answers[2].value().value(), "c.1");
  EXPECT_EQ(answers[3].value().value(), "b.1");
  ASSERT_EQ(fetched.size(), 2u);
  EXPECT_EQ(fetched[1], (std::vector<std::string>{"c", "d"}));
  EXPECT_TRUE(get(cache, {}).empty());
}

TEST_F(CacheTest, RES_33_one_flight_for_all_who_ask) {
  Cache cache(lane, random, fetcher());
  Caller& a = ask(cache, {"a", "b"});
  Caller& b = ask(cache, {"b", "c"});
  Caller& c = ask(cache, {"a"});
  EXPECT_EQ(fetched, (std::vector<std::vector<std::string>>{{"a", "b"}, {"c"}}));
  pass(milliseconds(10));
  ASSERT_TRUE(a.answer && b.answer && c.answer);
  EXPECT_EQ((*b.answer)[0].value().value(), "b.1");
  EXPECT_EQ((*b.answer)[1].value().value(), "c.1");
  EXPECT_EQ(cache.stats().joined, 2u);
}

TEST_F(CacheTest, RES_33_one_failing_id_fails_alone_and_is_not_kept) {
  Cache cache(lane, random, fetcher());
  const auto answers = get(cache, {"a", "bad", "b"});
  EXPECT_TRUE(answers[0] && answers[2]);
  EXPECT_EQ(answers[1].error().kind(), FailureKind::corrupt);
  get(cache, {"a", "bad"});
  EXPECT_EQ(fetched.back(), std::vector<std::string>{"bad"});
}

TEST_F(CacheTest, RES_33_absence_is_remembered_for_a_while) {
  Cache cache(lane, random, fetcher(), {.absent_ttl = seconds(2), .jitter = 0});
  EXPECT_FALSE(get(cache, {"no-such"})[0].value().has_value());
  get(cache, {"no-such"});
  EXPECT_EQ(fetched.size(), 1u);
  pass(seconds(2));
  get(cache, {"no-such"});
  EXPECT_EQ(fetched.size(), 2u);
}

TEST_F(CacheTest, RES_33_jitter_spreads_expiry) {
  Cache cache(lane, random, fetcher(), {.ttl = seconds(100), .jitter = 0.5});
  std::vector<std::string> ids;
  for (int i = 0; i < 100; ++i) ids.push_back("k" + std::to_string(i));
  get(cache, ids);
  pass(seconds(49));
  get(cache, ids);
  EXPECT_EQ(fetched.size(), 1u) << "none expires before half its time";
  pass(seconds(26));
  get(cache, ids);
  ASSERT_EQ(fetched.size(), 2u);
  EXPECT_GT(fetched[1].size(), 25u);
  EXPECT_LT(fetched[1].size(), 75u);
}

TEST_F(CacheTest, RES_33_what_was_absent_is_not_given_stale) {
  Cache cache(lane, random, fetcher(), {.absent_ttl = seconds(2), .jitter = 0, .stale = seconds(60)});
  get(cache, {"no-a"});
  pass(seconds(1));
  get(cache, {"no-a"});
  EXPECT_EQ(fetched.size(), 1u);
  pass(seconds(2));
  EXPECT_FALSE(get(cache, {"no-a"})[0].value());
  EXPECT_EQ(fetched.size(), 2u);
  EXPECT_EQ(cache.stats().stale_hits, 0u) << "it may be there since";
}

TEST_F(CacheTest, RES_33_fetches_of_one_group_leave_the_others_theirs) {
  CacheAsideOptions options;
  options.max_flights = 2;
  options.flight_group = [](const std::string& id) { return id.substr(0, 1); };
  Cache cache(lane, random, fetcher(), options);
  latency = seconds(5);
  auto& a1 = ask(cache, {"a1"});
  auto& a2 = ask(cache, {"a2"});
  auto& a3 = ask(cache, {"a3"});
  auto& b1 = ask(cache, {"b1"});
  ASSERT_TRUE(a3.answer);
  EXPECT_EQ((*a3.answer)[0].error().code(), "cache_flights_full");
  EXPECT_FALSE(b1.answer);
  pass(seconds(6));
  for (auto* one : {&a1, &a2, &b1}) EXPECT_TRUE(one->answer && (*one->answer)[0]);
  EXPECT_TRUE(get(cache, {"a4"})[0]) << "they are free again";
}

TEST_F(CacheTest, RES_33_stale_is_given_at_once_and_fetched_again_once) {
  Cache cache(lane, random, fetcher(), {.ttl = seconds(10), .jitter = 0, .stale = seconds(10)});
  get(cache, {"a"});
  version = 2;
  pass(seconds(11));
  Caller& first = ask(cache, {"a"});
  Caller& second = ask(cache, {"a"});
  ASSERT_TRUE(first.answer && second.answer) << "without waiting";
  EXPECT_EQ((*first.answer)[0].value().value(), "a.1");
  EXPECT_EQ(fetched.size(), 2u);
  pass(milliseconds(10));
  EXPECT_EQ(get(cache, {"a"})[0].value().value(), "a.2");
  down = true;
  pass(seconds(11));
  EXPECT_EQ(get(cache, {"a"})[0].value().value(), "a.2") << "stale is better than nothing";
  pass(seconds(10));
  EXPECT_FALSE(get(cache, {"a"})[0]) << "but not for ever";
}

TEST_F(CacheTest, RES_33_a_waiters_cancellation_does_not_cancel_the_flight) {
  Cache cache(lane, random, fetcher());
  Caller& gone = ask(cache, {"a", "b"});
  Caller& left = ask(cache, {"a"});
  Caller& destroyed = ask(cache, {"b"});
  gone.scope.cancel();
  ASSERT_TRUE(gone.answer);
  EXPECT_EQ((*gone.answer)[1].error().kind(), FailureKind::cancelled);
  destroyed.task.reset();
  pass(milliseconds(10));
  ASSERT_TRUE(left.answer);
  EXPECT_EQ((*left.answer)[0].value().value(), "a.1");
  get(cache, {"a", "b"});
  EXPECT_EQ(fetched.size(), 1u) << "what nobody waited for any more was kept";
}

TEST_F(CacheTest, RES_33_a_fetch_that_fails_throws_or_lies_fails_its_ids) {
  Cache cache(lane, random, fetcher());
  down = true;
  EXPECT_EQ(get(cache, {"a", "b"})[1].error().kind(), FailureKind::unavailable);
  down = false;
  throws = true;
  EXPECT_EQ(get(cache, {"a"})[0].error().code(), "foreign_exception");
  throws = false;
  mute = true;
  EXPECT_EQ(get(cache, {"a"})[0].error().code(), "bad_fetch");
  mute = false;
  latency = std::chrono::hours(1);
  const auto late = get(cache, {"a"});
  ASSERT_FALSE(late[0]);
  EXPECT_EQ(late[0].error().kind(), FailureKind::timeout);
  latency = {};
  EXPECT_TRUE(get(cache, {"a"})[0]);
}

TEST_F(CacheTest, RES_33_fetches_at_once_are_bounded) {
  Cache cache(lane, random, fetcher(), {.max_flights = 2});
  ask(cache, {"a"});
  ask(cache, {"b"});
  Caller& third = ask(cache, {"c", "a"});
  pass(milliseconds(10));
  ASSERT_TRUE(third.answer);
  EXPECT_EQ((*third.answer)[0].error().kind(), FailureKind::overloaded);
  EXPECT_TRUE((*third.answer)[1]) << "what is on its way is waited for";
}

TEST_F(CacheTest, RES_33_a_forgotten_id_is_not_brought_back_by_a_fetch_under_way) {
  Cache cache(lane, random, fetcher());
  Caller& before = ask(cache, {"a"});
  version = 2;
  cache.forget("a");
  Caller& after = ask(cache, {"a"});
  pass(milliseconds(10));
  EXPECT_EQ((*before.answer)[0].value().value(), "a.1");
  EXPECT_EQ((*after.answer)[0].value().value(), "a.2");
  EXPECT_EQ(get(cache, {"a"})[0].value().value(), "a.2");
}

TEST_F(CacheTest, RES_42_seeded_callers_get_the_right_answers) {
  Cache cache(lane, random, fetcher(),
              {.max_entries = 20,
               .ttl = milliseconds(20),
               .absent_ttl = milliseconds(5),
               .stale = milliseconds(10),
               .max_flights = 5});
  std::uint64_t answered = 0, cancelled = 0;
  for (int i = 0; i < 4000; ++i) {
    latency = milliseconds(random.below(6));
    down = random.one_in(8);
    std::vector<std::string> ids(random.below(6));
    for (auto& id : ids) {
      const char* kind = random.one_in(6) ? "bad" : random.one_in(5) ? "no" : "k";
      id = kind + std::to_string(random.below(25));
    }
    const std::vector<std::string> asked = ids;
    Caller& caller = ask(cache, std::move(ids));
    if (random.one_in(6) && !caller.answer) caller.scope.cancel();
    if (random.one_in(20) && !asked.empty()) cache.forget(asked[0]);
    pass(microseconds(random.below(3000)));
    if (callers.size() < 20) continue;
    pass(milliseconds(10));
    for (Caller& one : callers) {
      ASSERT_TRUE(one.answer);
      for (const auto& found : *one.answer) {
        answered += found.has_value() ? 1 : 0;
        cancelled += !found && found.error().kind() == FailureKind::cancelled ? 1 : 0;
        if (found && *found) ASSERT_TRUE((*found)->starts_with("k")) << **found;
      }
    }
    callers.clear();
  }
  EXPECT_GT(answered, 3000u);
  EXPECT_GT(cancelled, 100u);
}

}  // namespace
}  // namespace sluice::resilience
