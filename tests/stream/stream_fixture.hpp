// A stream whose messages a test makes, and whose handler it plays.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>

#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/stream.hpp"

namespace sluice::stream {

struct Message : Delivery {
  std::string key;
  std::string body;
};

class TestSession final : public Session {
 public:
  using Session::Session;
  /// Sends one; false without credit.
  bool send(std::string key, std::string body = {}, std::size_t size = 1) {
    if (!pushes && !has_credit()) return false;
    Message* message = nullptr;
    if (free.empty()) {
      message = &memory.emplace_back();
    } else {
      message = free.back();
      free.pop_back();
    }
    message->key = std::move(key);
    message->body = std::move(body);
    message->size = size;
    received(*message);
    return true;
  }
  /// Settles the first running one with this key.
  void finish(const std::string& key, Status status = {}) {
    for (auto at = running.begin(); at != running.end(); ++at)
      if ((*at)->key == key) {
        Message* message = *at;
        running.erase(at);
        return settle(*message, std::move(status));
      }
    FAIL() << "nothing of key '" << key << "' runs";
  }
  std::size_t runs(const std::string& key) const {
    return static_cast<std::size_t>(std::ranges::count_if(running, [&](Message* m) { return m->key == key; }));
  }

  std::deque<Message> memory;
  std::vector<Message*> free;
  std::deque<Message*> running;  // held by the test
  std::vector<std::string> began;  // bodies, in the order they ran
  /// What the handler does; without one the test settles.
  std::function<void(TestSession&, Message&)> handler;
  std::vector<std::uint64_t> marks;
  int ends = 0;
  bool pushes = false;           ///< sends without credit: the hard bounds behind it
  bool keeps = false;            ///< failures are made durable: the test says when, by kept()
  std::vector<Message*> keeping;
  using Session::kept;
  using Session::leave;
  bool answers_later = false;

 protected:
  bool keep_failure(Delivery& d, const Failure&) override {
    if (!keeps) return true;
    keeping.push_back(&static_cast<Message&>(d));
    return false;
  }
  bool answered_when_over() const noexcept override { return !answers_later; }
  void key_of(const Delivery& d, std::string& out) override { out += static_cast<const Message&>(d).key; }
  void handle(Delivery& d) override {
    auto& message = static_cast<Message&>(d);
    began.push_back(message.body);
    EXPECT_FALSE(terminal()) << "nothing begins after the end was decided";
    if (handler) return handler(*this, message);
    running.push_back(&message);
  }
  void released(Delivery& d) noexcept override { free.push_back(&static_cast<Message&>(d)); }
  void advanced(std::uint64_t sequence, FailureClass, bool) noexcept override { marks.push_back(sequence); }
  void ended() noexcept override { ++ends; }
};

struct StreamTest : testing::Test {
  sim::SimClock clock;
  sim::SimRandom random{7};
  Lane lane{clock};
  std::unique_ptr<Pipeline> pipeline;
  std::deque<std::unique_ptr<TestSession>> sessions;

  static Options keyed() {
    Options options;
    options.ordering.mode = Order::keyed;
    return options;
  }
  TestSession& open(Options options = {}) {
    if (!pipeline) pipeline = std::make_unique<Pipeline>(std::move(options), clock, random);
    auto& made = *sessions.emplace_back(std::make_unique<TestSession>(*pipeline, lane));
    EXPECT_TRUE(made.open());
    return made;
  }
  void turn(Duration by = {}) {
    clock.advance(by);
    while (lane.run_ready() != 0) {
    }
  }
  static Failure declined() { return Failure(FailureKind::rejected, "no_funds", "no"); }
  static Failure passing() { return Failure(FailureKind::unavailable, "down", "try again"); }
  ~StreamTest() override {
    for (auto& session : sessions) {
      session->cancel(Failure(FailureKind::cancelled, "the test is over"));
      while (!session->running.empty()) session->finish(session->running.front()->key);
      turn();
    }
    sessions.clear();
  }
};

}  // namespace sluice::stream
