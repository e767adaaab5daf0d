#include "apps/voucher/app.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/voucher/batch.hpp"
#include "apps/voucher/rows.hpp"

namespace sluice::voucher {
namespace {

class VoucherApp final : public server::App {
 public:
  std::string_view name() const noexcept override { return "voucher"; }

  Status install(server::AppContext& context) override {
    store_ = &context.store;
    distribution_ = std::make_unique<Distribution>(context.store, context.clock, context.ids);
    context.flows.add(distribution_->flow());
    rpc::CommandSpec distribute;
    distribute.name = "voucher.ss.distribution.batch_distribute_voucher";
    distribute.summary = "Gives vouchers to users, item by item; one result per item, in order.";
    distribute.app = "voucher";
    distribute.idempotency = rpc::KeyUse::required;
    distribute.input_schema =
        R"({"type":"object","required":["request_id","region","items"],"properties":{"request_id":{"type":"string"},)"
        R"("region":{"type":"string"},"items":{"type":"array","minItems":1,"maxItems":500,"items":{"type":"object",)"
        R"("required":["user","voucher"],"properties":{"user":{"type":"string"},"voucher":{"type":"string"}}}}}})";
    distribute.handler = [this](rpc::Invocation& invocation) { distribute_batch(invocation, *distribution_); };
    SLUICE_TRY(context.registry.add(std::move(distribute)));
    rpc::CommandSpec get;
    get.name = "voucher.catalogue.get";
    get.summary = "One voucher as it stands: what it is, what is left.";
    get.app = "voucher";
    get.idempotency = rpc::KeyUse::none;
    get.handler = [this](rpc::Invocation& invocation) { invocation.run_task(show(invocation)); };
    return context.registry.add(std::move(get));
  }

 private:
  Task<rpc::Answer> show(rpc::Invocation& invocation) {
    const auto json = nlohmann::json::parse(invocation.command.payload, nullptr, false);
    const std::string id = json.is_object() ? json.value("voucher", std::string()) : std::string();
    const std::string ns = invocation.command.ns.text();
    store::GetRows query;
    query.keys = {voucher_key(ns, id), stock_key(ns, id), budget_key(ns, id)};
    auto asking = store::ask(*store_, std::move(query));
    auto rows = co_await asking;
    if (!rows) co_return rpc::Answer::of(rows.error());
    if (!rows->at(0)) {
      Failure none(FailureKind::not_found, "unknown_voucher", "no voucher '" + id + "'");
      co_return rpc::Answer::of(std::move(none));
    }
    auto voucher = decode_voucher(rows->at(0)->value);
    if (!voucher) co_return rpc::Answer::of(voucher.error());
    const auto number = [&](std::size_t at) { return rows->at(at) ? rows->at(at)->number : 0; };
    nlohmann::json body{{"voucher", voucher->id}, {"name", voucher->name}, {"region", voucher->region},
                        {"value_minor", voucher->value_minor}, {"currency", voucher->currency},
                        {"stock", voucher->stock}, {"left", number(1)}, {"budget_left_minor", number(2)}};
    Reply reply = Reply::ok(body.dump());
    co_return rpc::Answer::of(reply);
  }

  store::Store* store_ = nullptr;
  std::unique_ptr<Distribution> distribution_;
};

}  // namespace

std::unique_ptr<server::App> make_app() { return std::make_unique<VoucherApp>(); }

}  // namespace sluice::voucher
