// A door on a free port, with a command that echoes, one that is held back, and one that fails.
#pragma once
#include <gtest/gtest.h>

#include <mutex>
#include <vector>

#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/transport/http.hpp"
#include "support/http_client.hpp"
#include "support/any_store.hpp"

namespace sluice::transport {

using test::get;
using test::HttpClient;
using test::HttpResponse;
using test::post;

inline const std::string kAnn = "Authorization: Bearer ann-token\r\n";
inline const std::string kBob = "Authorization: Bearer bob-token\r\n";

class DoorTest : public ::testing::Test {
 protected:
  DoorTest() : registry(*store, keys, ids) {
    add("echo", rpc::KeyUse::optional, [](rpc::Invocation& invocation) {
      invocation.finish(rpc::Answer::of(Reply::ok("{\"echo\":" + invocation.command.payload + "}"),
                                        invocation.exchange()));
    });
    add("place", rpc::KeyUse::required, [this](rpc::Invocation& invocation) {
      ++runs;
      invocation.finish(rpc::Answer::of(Reply::ok("{\"run\":" + std::to_string(runs) + "}")));
    });
    add("hold", rpc::KeyUse::none, [this](rpc::Invocation& invocation) {
      std::lock_guard lock(mutex);
      held.push_back(&invocation);
    });
    add("fail", rpc::KeyUse::none, [](rpc::Invocation& invocation) {
      invocation.finish(
          rpc::Answer::of(Failure(FailureKind::rate_limited, "slow_down", "too \"many\"\n")
                              .with_retry_after(milliseconds(1500))));
    });
    add("unsettled", rpc::KeyUse::none, [](rpc::Invocation& invocation) {
      const bool doubt = invocation.command.payload == "true";
      invocation.finish(doubt ? rpc::Answer::in_doubt({7}) : rpc::Answer::pending({7}));
    });
    hooks.authenticate =
        [](std::string_view token) -> Result<std::shared_ptr<const rpc::Principal>> {
      if (token == "ann-token")
        return std::make_shared<rpc::Principal>(rpc::Principal{"ann", {"*:*"}, true});
      if (token == "bob-token")
        return std::make_shared<rpc::Principal>(rpc::Principal{"bob", {"bank:*"}, false});
      return fail(FailureKind::unauthenticated, "unknown_token", "this token is not known");
    };
    options.port = 0;
  }
  ~DoorTest() override {
    if (door) door->stop();
    store->close();
  }
  void add(std::string name, rpc::KeyUse use, rpc::Handler handler) {
    rpc::CommandSpec spec;
    spec.name = std::move(name);
    spec.app = "shop";
    spec.idempotency = use;
    spec.handler = std::move(handler);
    ASSERT_TRUE(registry.add(std::move(spec)));
  }
  void start() {
    door = std::make_unique<HttpDoor>(registry, clock, options, hooks);
    const auto started = door->start();
    ASSERT_TRUE(started) << started.error().to_string();
  }
  HttpResponse ask(std::string_view text) {
    HttpClient client(door->port());
    auto response = client.ask(text);
    EXPECT_TRUE(response) << "no answer";
    return response ? std::move(*response) : HttpResponse{};
  }
  /// Waits for the loops without moving their time.
  template <class F>
  static bool wait_until(F until) {
    for (int i = 0; i < 10'000; ++i) {
      if (until()) return true;
      pollfd none{-1, 0, 0};
      ::poll(&none, 1, 1);
    }
    return false;
  }
  /// Moves the time of the loops until `until` holds.
  template <class F>
  bool advance_until(F until, Duration step = seconds(1)) {
    for (int i = 0; i < 2000; ++i) {
      if (until()) return true;
      clock.advance(step);
      for (std::size_t l = 0; l < door->lanes(); ++l) door->lane(l).post([] {});
      pollfd none{-1, 0, 0};
      ::poll(&none, 1, 1);
    }
    return false;
  }
  std::size_t held_count() {
    std::lock_guard lock(mutex);
    return held.size();
  }
  /// Answers the oldest held invocation, on its lane.
  void release(std::string body = "{}") {
    rpc::Invocation* one;
    {
      std::lock_guard lock(mutex);
      one = held.front();
      held.erase(held.begin());
    }
    one->lane->post([one, body] { one->finish(rpc::Answer::of(Reply::ok(body))); });
  }

  sim::SimClock clock;
  sim::SimRandom random{1};
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  idempotency::Keys keys{clock, store.get()};
  IdSource ids{clock, 1};
  rpc::Registry registry;
  HttpOptions options;
  HttpHooks hooks;
  std::unique_ptr<HttpDoor> door;
  std::mutex mutex;
  std::vector<rpc::Invocation*> held;
  int runs = 0;
};

}  // namespace sluice::transport
