// A whole server on a free port with the memory store, and the commands that tests need: one that
// counts, one that is held back, a flow that waits in a stage until its caller leaves.
#pragma once
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <mutex>
#include <vector>

#include "sluice/base/runtime.hpp"
#include "sluice/rpc/flow_handler.hpp"
#include "sluice/server/server.hpp"
#include "support/http_client.hpp"

namespace sluice::server {

/// Looks again every millisecond, for ten seconds.
template <class F>
bool wait_until(F until) {
  for (int i = 0; i < 10'000; ++i) {
    if (until()) return true;
    pollfd none{-1, 0, 0};
    ::poll(&none, 1, 1);
  }
  return false;
}

class ProbeApp final : public App {
 public:
  std::string_view name() const noexcept override { return "probe"; }
  Status install(AppContext& context) override {
    rpc::CommandSpec hold;
    hold.name = "probe.hold";
    hold.app = "shop";
    hold.idempotency = rpc::KeyUse::optional;
    hold.handler = [this](rpc::Invocation& invocation) {
      const std::lock_guard lock(mutex_);
      held_.push_back(&invocation);
    };
    SLUICE_TRY(context.registry.add(std::move(hold)));
    rpc::CommandSpec count;
    count.name = "probe.count";
    count.app = "shop";
    count.idempotency = rpc::KeyUse::optional;
    count.handler = [](rpc::Invocation& invocation) {
      store::Commit commit;
      commit.then.push_back(store::KvAdd{{"shop", "n", "runs"}, 1});
      invocation.finish_with(std::move(commit), Reply::ok("{}"));
    };
    SLUICE_TRY(context.registry.add(std::move(count)));
    flow::FlowOptions options;
    options.store = &context.store;
    options.keys = &context.keys;
    options.ids = &context.ids;
    flow_ = std::make_unique<flow::Flow>("probe.wait", options);
    flow_->group("main", {flow::task_func("wait", [this](flow::Exchange& exchange) {
                   return stage(exchange);
                 })});
    context.flows.add(*flow_);
    rpc::CommandSpec wait;
    wait.name = "probe.wait";
    wait.app = "shop";
    wait.handler = rpc::flow_handler(*flow_);
    return context.registry.add(std::move(wait));
  }
  std::size_t held() {
    const std::lock_guard lock(mutex_);
    return held_.size();
  }
  /// Answers the oldest held one.
  void release() {
    rpc::Invocation* one;
    {
      const std::lock_guard lock(mutex_);
      one = held_.front();
      held_.erase(held_.begin());
    }
    one->lane->post([one] { one->finish(rpc::Answer::of(Reply::ok("{\"held\":true}"))); });
  }
  std::atomic<int> waiting{0};    // stages that wait
  std::atomic<int> cancelled{0};  // stages that saw the cancellation

 private:
  Task<Result<flow::Vote>> stage(flow::Exchange& exchange) {
    exchange.draft().add({"shop", "n", "runs"}, 1);
    ++waiting;
    const FailureKind cut_short = co_await sleep_for(std::chrono::hours(1));
    if (cut_short != FailureKind::none) {
      ++cancelled;
      co_return fail(cut_short, "cut_short", "the caller has left");
    }
    co_return flow::Vote();
  }
  std::mutex mutex_;
  std::vector<rpc::Invocation*> held_;
  std::unique_ptr<flow::Flow> flow_;
};

struct RunningServer {
  explicit RunningServer(Config config = {}, Logger& logger = null_logger(), Clock* clock = nullptr) {
    if (!config.postgres.url.empty())
      config.store_kind = "sqlite";  // the address decides
    else if (config.store_kind != "sqlite" || config.sqlite.path == "sluice.db")
      config.store_kind = "memory";
    config.http.port = 0;
    ServerParts parts;
    parts.logger = &logger;
    parts.clock = clock;
    auto app = std::make_unique<ProbeApp>();
    probe = app.get();
    parts.apps.push_back(std::move(app));
    parts.first_token = [this](const std::string& token) { admin = token; };
    auto opened = Server::open(std::move(config), std::move(parts));
    EXPECT_TRUE(opened) << (opened ? "" : opened.error().to_string());
    if (!opened) return;
    server = std::move(*opened);
    const auto started = server->start();
    EXPECT_TRUE(started);
  }
  test::HttpResponse ask(std::string_view text) {
    test::HttpClient client(server->port());
    auto response = client.ask(text);
    return response ? *response : test::HttpResponse{};
  }
  std::string bearer() const { return "Authorization: Bearer " + admin + "\r\n"; }
  std::string keyed(std::string_view key) const {
    return bearer() + "Idempotency-Key: " + std::string(key) + "\r\n";
  }
  /// How often an effect happened.
  std::int64_t runs() {
    const auto rows =
        store::ask_now(server->context().store, store::GetRows{{{"shop", "n", "runs"}}});
    return rows && (*rows)[0] ? (*rows)[0]->number : 0;
  }
  bool metric(std::string_view line) { return ask(test::get("/metrics")).has(line); }

  std::string admin;
  ProbeApp* probe = nullptr;
  std::unique_ptr<Server> server;
};

}  // namespace sluice::server
