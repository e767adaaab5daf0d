// Keys over each backend, or none, on a lane that the test turns by hand.
#pragma once
#include <gtest/gtest.h>

#include "sluice/idempotency/keys.hpp"
#include "store/store_fixture.hpp"

namespace sluice::idempotency {

enum class Behind { nothing, memory, sqlite, postgres };

inline std::string behind_name(const testing::TestParamInfo<Behind>& info) {
  constexpr const char* kNames[] = {"memory_only", "memory_store", "sqlite", "postgres"};
  return kNames[static_cast<int>(info.param)];
}

inline Digest print_of(std::string_view payload) { return sha256(payload); }

/// One request of a test.
struct Request : PendingClaim {
  bool ran = false;
  Request(std::string key, std::string_view payload, std::uint64_t id, Lane* on) {
    scope = std::move(key);
    fingerprint = print_of(payload);
    exchange = {id};
    lane = on;
    run = [](Job* job) noexcept {
      static_cast<Request*>(static_cast<PendingClaim*>(job))->ran = true;
    };
  }
  template <class T>
  T* as() {
    return answer ? std::get_if<T>(&*answer) : nullptr;
  }
  Bytes replayed() {
    auto* replay = as<Replay>();
    return replay != nullptr ? replay->cached->reply : Bytes("(no replay)");
  }
};

class KeysTest : public testing::TestWithParam<Behind> {
 protected:
  struct Sleeper : Waker {
    Parker parker;
    void wake() noexcept override { parker.wake(); }
  };

  KeysTest() { lane.set_waker(&sleeper); }
  ~KeysTest() override {
    if (store) store->close();
    lane.run_ready();
  }
  static std::unique_ptr<store::Store> open(store::StoreRig& rig) {
    if (GetParam() == Behind::nothing) return nullptr;
    return rig.open(GetParam() == Behind::memory   ? store::Backend::memory
                    : GetParam() == Behind::sqlite ? store::Backend::sqlite
                                                   : store::Backend::postgres);
  }
  std::unique_ptr<Keys> make_keys(KeysOptions options = {}) {
    return std::make_unique<Keys>(rig.clock, store.get(), options);
  }

  Request request(std::string key, std::string_view payload = "pay 5") {
    return Request(std::move(key), payload, ++last_exchange, &lane);
  }
  /// Claims, and waits for the answer that must come without anyone else's doing.
  Request& claim(Request& request, Keys* from = nullptr) {
    if (!(from != nullptr ? *from : *keys).claim(request)) until_ran(request);
    return request;
  }
  void until_ran(Request& request) {
    while (!request.ran) {
      lane.run_ready();
      if (!request.ran && lane.prepare_to_sleep()) ASSERT_TRUE(sleeper.parker.park(seconds(20)));
    }
  }
  Claim must_run(Request& r, Keys* from = nullptr) {
    claim(r, from);
    auto* run = r.as<idempotency::Run>();
    EXPECT_NE(run, nullptr) << (r.answer ? "answer " + std::to_string(r.answer->index())
                                         : r.answer.error().to_string());
    return run != nullptr ? std::move(run->claim) : Claim();
  }
  /// What a flow does at its decision.
  void decide(Claim claim, const Bytes& reply) {
    if (store) {
      store::Commit commit;
      claim.complete_in(commit, reply);
      const auto outcome = store::commit_and_wait(*store, std::move(commit));
      ASSERT_TRUE(outcome) << outcome.error().to_string();
      if (!outcome->applied) return claim.lost(*outcome->key);
    }
    claim.completed(reply);
  }
  void turn(Duration by) {
    rig.clock.advance(by);
    lane.run_ready();
  }

  store::StoreRig rig;
  Lane lane{rig.clock};
  Sleeper sleeper;
  std::unique_ptr<store::Store> store = open(rig);
  std::unique_ptr<Keys> keys = make_keys();
  std::uint64_t last_exchange = 0;
};

#define SLUICE_KEYS_SUITE(name)    \
  class name : public KeysTest {}; \
  INSTANTIATE_TEST_SUITE_P(        \
      Behind, name, testing::Values(Behind::nothing, Behind::memory, Behind::sqlite, Behind::postgres), \
                           behind_name)

}  // namespace sluice::idempotency
