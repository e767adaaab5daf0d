// The durable mark of a stream: what it says, how it is written, when it is too old.
#include "sluice/stream/ledger.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/store/memory.hpp"
#include "support/forwarding_store.hpp"

namespace sluice::stream {
namespace {

using testing::HasSubstr;

Progress some() {
  Progress p;
  p.epoch = 3, p.done = 1000, p.succeeded = 990, p.replayed = 4;
  p.failed[static_cast<std::size_t>(FailureClass::handler_error)] = 9;
  p.failed[static_cast<std::size_t>(FailureClass::unsettled)] = 1;
  p.first_failures.push_back({7, FailureClass::unsettled, Failure(FailureKind::in_doubt, "").with("transaction", "x-1")});
  p.reach = 1200;
  p.moved_at = WallTime(milliseconds(1'700'000'000'123));
  p.failed_ahead[1003] = {1003, FailureClass::handler_error, Failure(FailureKind::unavailable, "down", "try again")};
  return p;
}

TEST(Ledger, STREAM_15_a_mark_reads_back_as_it_was_written) {
  const Progress was = some();
  const auto is = Progress::decode(was.encode());
  ASSERT_TRUE(is);
  EXPECT_EQ(is->encode(), was.encode());
  EXPECT_EQ(is->reach, 1200u);
  EXPECT_EQ(is->moved_at, was.moved_at);
  EXPECT_EQ(transaction_of(is->first_failures.at(0).failure), "x-1");
  EXPECT_EQ(is->failed_ahead.at(1003).failure.code(), "down");
}

TEST(Ledger, STREAM_15_a_mark_that_is_cut_or_of_another_format_is_corrupt) {
  const Bytes whole = some().encode();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const auto cut = Progress::decode(ByteView(whole).substr(0, size));
    ASSERT_FALSE(cut) << size;
    EXPECT_EQ(cut.error().kind(), FailureKind::corrupt);
  }
  Bytes other = whole;
  other[0] = 9;
  EXPECT_FALSE(Progress::decode(other));
}

// As servers wrote it before the mark knew of unsettled messages.
TEST(Ledger, STREAM_15_a_mark_of_the_first_format_is_read) {
  Bytes old;
  ByteWriter writer(old);
  writer.u8(1);
  for (const std::uint64_t n : {2u, 500u, 498u, 0u}) writer.varint(n);
  for (const std::uint64_t n : {0u, 2u, 0u, 0u, 0u, 0u, 0u}) writer.varint(n);
  writer.varint(1);
  writer.varint(5);
  writer.u8(static_cast<std::uint8_t>(FailureClass::handler_error));
  writer.u8(static_cast<std::uint8_t>(FailureKind::rejected));
  writer.bytes("no_funds");
  writer.bytes("empty");
  const auto is = Progress::decode(old);
  ASSERT_TRUE(is);
  EXPECT_EQ(is->done, 500u);
  EXPECT_EQ(is->first_failures.at(0).failure.code(), "no_funds");
  EXPECT_EQ(is->reach, Progress::kUnknown);
  EXPECT_TRUE(is->failed_ahead.empty());
}

class OpenLedger : public testing::Test {
 protected:
  template <class T>
  T wait(Task<T> task) {
    TaskContext context{&lane, nullptr, kNever};
    if (!task.start(context, [](void*) noexcept {}, nullptr))
      while (!task.done()) lane.run_ready();
    return task.take();
  }
  Status open(Ledger& ledger, std::uint64_t epoch) { return wait(ledger.open(epoch)); }
  Status save(Ledger& ledger) { return wait(ledger.save()); }
  void later(Duration by) { clock.advance(by); }

  sim::SimClock clock;
  sim::SimRandom random{1};
  Lane lane{clock};
  const std::unique_ptr<store::Store> kept = store::make_memory_store(clock, random);
  store::Store& store = *kept;
  const store::KvKey row{"sluice", "streams", "s"};
};

TEST_F(OpenLedger, STREAM_15_what_failed_past_the_mark_is_known_until_the_mark_passes_it) {
  {
    Ledger first(store, row);
    ASSERT_TRUE(open(first, 1));
    first.fail_ahead({2, FailureClass::handler_error, Failure(FailureKind::unavailable, "down", "try again")}, 1);
    first.fail_ahead({4, FailureClass::handler_error, Failure(FailureKind::unavailable, "down", "and again")}, 1);
    EXPECT_TRUE(first.changed());
    ASSERT_TRUE(save(first));
    EXPECT_FALSE(first.changed());
  }
  Ledger second(store, row);
  ASSERT_TRUE(open(second, 2));
  ASSERT_NE(second.failed_ahead(2), nullptr);
  EXPECT_EQ(second.failed_ahead(2)->failure.detail(), "try again");
  ASSERT_NE(second.failed_ahead(4), nullptr) << "beyond what is told it is known without its text";
  EXPECT_EQ(second.failed_ahead(4)->failure.code(), "down");
  EXPECT_EQ(second.failed_ahead(3), nullptr);
  second.advance(1, FailureClass::none, false, nullptr, 100);
  second.advance(2, FailureClass::handler_error, false, nullptr, 100);
  EXPECT_EQ(second.failed_ahead(2), nullptr);
  ASSERT_TRUE(save(second));
  EXPECT_EQ(second.progress().failed_ahead.size(), 1u);
}

/// Does something just before each of the next Commits.
class Between final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  std::function<void()> before;
  int times = 0;
  void submit(store::PendingCommit& pending) override {
    if (times > 0) {
      --times;
      before();
    }
    inner_.submit(pending);
  }
};

TEST_F(OpenLedger, STREAM_15_a_mark_that_moves_while_the_stream_is_taken_over_does_not_pass_for_a_younger_epoch) {
  Ledger old(store, row);
  ASSERT_TRUE(open(old, 1));
  Between busy(store);
  std::uint64_t done = 0;
  busy.before = [&] {
    old.advance(++done, FailureClass::none, false, nullptr, 100);
    EXPECT_TRUE(save(old));
  };
  busy.times = 3;
  Ledger young(busy, row);
  ASSERT_TRUE(open(young, 2));
  EXPECT_EQ(young.progress().done, 3u) << "what was done meanwhile is known";
  old.advance(4, FailureClass::none, false, nullptr, 100);
  EXPECT_EQ(save(old).error().code(), "stale_epoch");
  Ledger late(store, row);
  const Status told = open(late, 2);
  EXPECT_EQ(told.error().code(), "stale_epoch") << "an epoch that was used is told so at once";
  ASSERT_EQ(told.error().details().size(), 1u);
  EXPECT_EQ(told.error().details().front(), std::pair(std::string(kHeldEpoch), std::string("2")));
  Ledger third(store, row);
  ASSERT_TRUE(open(third, 3));
  busy.times = 1000;
  busy.before = [&] { EXPECT_TRUE(save(third)); };
  Ledger never(busy, row);
  EXPECT_EQ(open(never, 4).error().code(), "stale_epoch");
  EXPECT_GT(busy.times, 900) << "it does not try for ever";
}

TEST_F(OpenLedger, STREAM_15_after_a_crash_a_stream_is_too_old_when_its_keys_may_be_gone) {
  {
    Ledger cut(store, row);
    ASSERT_TRUE(open(cut, 1));
    later(std::chrono::hours(24 * 5));
    cut.advance(1, FailureClass::none, false, nullptr, 100);
    ASSERT_TRUE(save(cut));
  }  // nobody closed it
  later(std::chrono::hours(24 * 6));
  {
    Ledger again(store, row);
    EXPECT_TRUE(open(again, 2)) << "six days after it moved";
  }
  later(milliseconds(1));  // coming again is no move
  Ledger late(store, row);
  const Status old = open(late, 3);
  ASSERT_FALSE(old);
  EXPECT_EQ(old.error().kind(), FailureKind::precondition_failed);
  EXPECT_EQ(old.error().code(), "stream_too_old");
  EXPECT_THAT(std::string(old.error().detail()), HasSubstr("Up to message 1 all is done"));
}

TEST_F(OpenLedger, STREAM_15_a_stream_of_which_all_that_ever_ran_is_done_is_never_too_old) {
  {
    Ledger cut(store, row);
    ASSERT_TRUE(open(cut, 1));
    cut.close(3);  // 2 and 3 may have run
    ASSERT_TRUE(save(cut));
  }
  {
    Ledger rest(store, row);
    ASSERT_TRUE(open(rest, 2));
    for (std::uint64_t n = 1; n <= 2; ++n) rest.advance(n, FailureClass::none, false, nullptr, 100);
    rest.close(2);
    ASSERT_TRUE(save(rest));
    EXPECT_EQ(rest.progress().reach, 3u) << "of the connection before";
  }
  {
    Ledger last(store, row);
    ASSERT_TRUE(open(last, 3));
    last.advance(3, FailureClass::none, false, nullptr, 100);
    last.close(3);
    ASSERT_TRUE(save(last));
  }
  later(std::chrono::hours(24 * 365));
  Ledger much_later(store, row);
  EXPECT_TRUE(open(much_later, 4));
}

}  // namespace
}  // namespace sluice::stream
