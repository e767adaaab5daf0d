#include "cli/demo_app.hpp"

#include <nlohmann/json.hpp>

#include "sluice/rpc/flow_handler.hpp"

namespace sluice::cli {
namespace {

// Long enough that a process killed meanwhile leaves something to recover.
constexpr Duration kPartnerTakes = milliseconds(200);

class Partner final : public flow::Stage {
 public:
  std::string_view name() const noexcept override { return "partner"; }
  flow::Effect effect() const noexcept override { return flow::Effect::external; }
  bool asynchronous() const noexcept override { return true; }
  bool has_commit() const noexcept override { return true; }
  bool has_abort() const noexcept override { return true; }
  Task<Result<flow::Vote>> prepare_task(flow::Exchange&) override {
    const FailureKind cut = co_await sleep_for(kPartnerTakes);
    if (cut != FailureKind::none) {
      Failure why(cut, "partner_cut", "the partner's answer did not come in time");
      co_return fail(std::move(why));
    }
    co_return flow::Vote::continue_();
  }
  Task<Status> commit_task(flow::Exchange&) override { co_return Status(); }
  Task<Status> abort_task(flow::Exchange&, bool) override { co_return Status(); }
};

Result<flow::Vote> book(flow::Exchange& exchange) {
  const auto json = nlohmann::json::parse(exchange.request(), nullptr, false);
  const auto key = json.is_object() ? json.find("key") : json.end();
  if (!json.is_object() || key == json.end() || !key->is_string())
    return fail(FailureKind::invalid_argument, "bad_payload", "expected {\"key\": text}");
  exchange.draft().add({exchange.ns().text(), "kv.demo", key->get<std::string>()}, 1);
  exchange.respond(Reply::ok(R"({"order":")" + to_string(exchange.id()) + "\"}"));
  return flow::Vote::continue_();
}

class DemoApp final : public server::App {
 public:
  std::string_view name() const noexcept override { return "demo"; }
  Status install(server::AppContext& context) override {
    flow::FlowOptions options;
    options.store = &context.store;
    order_ = std::make_unique<flow::Flow>("demo.order", std::move(options));
    order_->group("main", {flow::func("book", book), std::make_shared<Partner>()});
    context.flows.add(*order_);
    rpc::CommandSpec spec;
    spec.name = "demo.order";
    spec.summary = "Adds one to a row, with a partner outside.";
    spec.handler = rpc::flow_handler(*order_);
    return context.registry.add(std::move(spec));
  }

 private:
  std::unique_ptr<flow::Flow> order_;
};

}  // namespace

std::unique_ptr<server::App> make_demo_app() { return std::make_unique<DemoApp>(); }

}  // namespace sluice::cli
