#include "apps/voucher/app.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "voucher/v1/distribution.pb.h"

#include "apps/voucher/answers.hpp"
#include "apps/voucher/batch.hpp"
#include "apps/voucher/model.hpp"
#include "apps/voucher/rows.hpp"
#include "apps/voucher/segments.hpp"
#include "sluice/base/text.hpp"
#include "sluice/rpc/flow_handler.hpp"
#include "sluice/rpc/interceptors.hpp"
#include "sluice/store/nodes.hpp"

namespace sluice::voucher {
namespace {

namespace v1 = ::voucher::v1;

class VoucherApp final : public server::App {
 public:
  explicit VoucherApp(VoucherOptions options) : options_(std::move(options)) {}
  std::string_view name() const noexcept override { return "voucher"; }

  Status install(server::AppContext& context) override {
    store_ = &context.store;
    SLUICE_TRY(connect(context));
    limit_caller(options_.caller_rate, context, caller_limit_);
    limit_caller(options_.caller_region_rate, context, region_limit_);
    distribution_ = std::make_unique<Distribution>(context.store, context.clock, context.ids, downstream_.get(),
                                                   CallerLimits{caller_limit_.get(), region_limit_.get()}, &context.metrics, &context.logger);
    for (const auto& region : options_.regions)
      if (!valid_region(region))
        return fail(FailureKind::invalid_argument, "bad_region",
                    fmt::format("--regions: expected two capital letters, or ALL, got '{}'", beginning_of(region, 64)));
    distribution_->serve_only(options_.regions);
    distribution_->keep_for(options_.requests_kept);
    context.flows.add(distribution_->flow());
    rpc::CommandSpec distribute;
    distribute.name = "voucher.ss.distribution.batch_distribute_voucher";
    distribute.summary = "Gives vouchers to users, item by item; one result per item, in order.";
    distribute.app = "voucher";
    distribute.idempotency = rpc::KeyUse::required;
    distribute.keys.ttl = options_.requests_kept;
    distribute.input_schema =
        R"({"type":"object","required":["request_id","region","items"],"properties":{"request_id":{"type":"string"},)"
        R"("region":{"type":"string"},"items":{"type":"array","minItems":1,"maxItems":500,"items":{"type":"object",)"
        R"("required":["user","voucher"],"properties":{"user":{"type":"string"},"voucher":{"type":"string"}}}}}})";
    distribute.handler = [this](rpc::Invocation& invocation) { distribute_batch(invocation, *distribution_); };
    SLUICE_TRY(context.registry.add(std::move(distribute)));
    // Also keeps the linker from leaving the messages out, which the door knows by their names alone.
    context.grpc.bind(v1::BatchDistributeVoucherRequest::descriptor()->file()->service(0)->full_name() +
                          "/BatchDistributeVoucher",
                      "voucher.ss.distribution.batch_distribute_voucher");
    rpc::CommandSpec restock;
    restock.name = "voucher.catalogue.restock";
    restock.summary = "More stock and budget for a voucher; what was sold out is not any more.";
    restock.app = "voucher";
    restock.idempotency = rpc::KeyUse::required;
    restock.input_schema =
        R"({"type":"object","required":["voucher"],"additionalProperties":false,"properties":{"voucher":{"type":"string"},)"
        R"("stock":{"type":"integer","minimum":0},"budget_minor":{"type":"integer","minimum":0}}})";
    restock.handler = rpc::flow_handler(distribution_->restock());
    context.flows.add(distribution_->restock());
    SLUICE_TRY(context.registry.add(std::move(restock)));
    rpc::CommandSpec saved;
    saved.name = "voucher.downstream.show";
    saved.summary = "What the distribution service asked other services, and what it did not have to.";
    saved.app = "sluice";  // counts what every app asked
    saved.shadow = false;
    saved.idempotency = rpc::KeyUse::none;
    saved.handler = [this](rpc::Invocation& invocation) {
      const Downstream::Stats stats = downstream_ ? downstream_->stats() : Downstream::Stats{};
      const nlohmann::json body{{"code_calls", stats.code_calls}, {"code_calls_refused", stats.code_calls_refused},
                                {"codes_at_hand", stats.codes_at_hand},
                                {"code_waits", stats.code_waits}, {"user_calls", stats.user_calls},
                                {"users_asked", stats.users_asked},
                                {"store", leases_as_.store},      {"owner", leases_as_.owner}};
      invocation.finish(rpc::Answer::of(Reply::ok(body.dump())));
    };
    SLUICE_TRY(context.registry.add(std::move(saved)));
    rpc::CommandSpec get;
    get.name = "voucher.catalogue.get";
    get.summary = "One voucher as it stands: what it is, what is left.";
    get.app = "voucher";
    get.idempotency = rpc::KeyUse::none;
    get.input_schema =
        R"({"type":"object","required":["voucher"],"additionalProperties":false,)"
        R"("properties":{"voucher":{"type":"string","description":"its id, as in vouchers.csv"}}})";
    get.handler = [this](rpc::Invocation& invocation) { invocation.run_task(show(invocation)); };
    return context.registry.add(std::move(get));
  }

 private:
  static void limit_caller(std::uint64_t rate, server::AppContext& context, std::unique_ptr<resilience::HotKeys>& out) {
    if (rate == 0) return;
    resilience::HotKeyOptions limit;
    limit.limit = rate;
    limit.burst = std::max<std::uint64_t>(rate, kMaxItems);
    out = std::make_unique<resilience::HotKeys>(limit, context.random);
  }

  // Whoever reads a code can spend it: codes are no business of the log.
  static rpc::CallLogOptions call_log() {
    rpc::CallLogOptions options;
    // What is worth money, and who people are: a log is read by more of us than the store.
    options.secret_fields = {"code", "codes", "universal", "user", "users"};
    return options;
  }

  Status connect(server::AppContext& context) {
    const auto client = [&](const char* name, const std::string& target, const std::string& token,
                            std::unique_ptr<rpc::Client>& out) -> Status {
      const auto configured = context.channels.find(name);
      server::ChannelConfig channel;
      if (configured != context.channels.end()) channel = configured->second;
      if (!target.empty()) channel.options.target = target;
      if (channel.options.target.empty() && configured != context.channels.end())
        return fail(FailureKind::invalid_argument, "bad_target",
                    fmt::format("channels.{}.target is not set: expected host:port", name));
      if (channel.options.target.empty()) return {};
      if (!token.empty()) channel.options.token = token, channel.token_file.clear();
      if (channel.options.token.empty() && channel.token_file.empty())
        context.logger.warn(fmt::format("no token is sent to another service, which will refuse to answer: set {} or channels.{}.token_file",
                                        std::string_view(name) == "codes" ? "SLUICE_CODE_TOKEN" : "SLUICE_USER_TOKEN", name),
                            {{"channel", name}, {"target", channel.options.target}});
      if (!options_.service_ca.empty()) channel.options.tls_ca = options_.service_ca;
      channel.options.logger = &context.logger;
      SLUICE_ASSIGN(auto made, server::open_channel(name, channel));
      out = std::make_unique<rpc::Client>(
          std::move(made), std::vector<std::shared_ptr<rpc::Interceptor>>{
                               rpc::log_calls(context.logger, call_log()), rpc::trace_calls(context.random),
                               rpc::measure_calls(context.metrics), rpc::shadow_calls(),
                               rpc::guard_calls(context.guards, context.random), check_answers()});
      return {};
    };
    for (const auto& [name, channel] : context.channels)
      if (name != "codes" && name != "users")
        context.logger.warn("a channel is configured that this application does not use; it uses codes and users",
                            {{"channel", name}, {"target", channel.options.target}});
    if (const auto& owner = options_.downstream.owner; !owner.empty() && !valid_id(owner))
      return fail(FailureKind::invalid_argument, "bad_owner",
                  "--owner: expected 1 to 64 of A-Z a-z 0-9 - _ ., got '" + std::string(beginning_of(owner, 64)) + "'");
    SLUICE_TRY(client("codes", options_.code_service, options_.code_token, codes_));
    SLUICE_TRY(client("users", options_.user_service, options_.user_token, users_));
    if (codes_ == nullptr && users_ == nullptr) return {};
    supply_ = std::make_unique<CodeSupply>(context.store);
    DownstreamOptions downstream = options_.downstream;
    if (downstream.owner.empty()) {
      const auto* nodes = store::nodes_of(context.store);
      SLUICE_ASSIGN(const std::string store, identity(context));
      downstream.owner = fmt::format("distribution-{}-{}", store, nodes != nullptr ? nodes->node() : 1);
    }
    // Drawn with the database, and anew when it is found in another file or was restored: what another file has
    // assigned since, or what was assigned after the backup, this one does not know.
    downstream.store = fmt::format("{:016x}", context.store.incarnation());
    leases_as_ = {downstream.store, downstream.owner};
    downstream_ = std::make_unique<Downstream>(*supply_, codes_.get(), users_.get(), context.clock, context.random,
                                               std::move(downstream));
    return {};
  }

  // A name of its own for each store, so that operators can tell owners apart.
  static Result<std::string> identity(server::AppContext& context) {
    const store::KvKey key = identity_key("voucher");
    for (;;) {
      SLUICE_ASSIGN(const auto answer, store::ask_and_wait(context.store, store::GetRows{{key}}));
      if (const auto& row = std::get<store::GetRows::Answer>(answer)[0]) return row->value;
      store::Commit commit;
      commit.requires_.push_back({store::KvVersionIs{key, 0}, "identity"});  // another node may be faster
      commit.then.push_back(store::KvPut{key, fmt::format("{:08x}", context.random.next() >> 32), {}});
      SLUICE_TRY(store::commit_and_wait(context.store, std::move(commit)));
    }
  }

  Task<rpc::Answer> show(rpc::Invocation& invocation) {
    const auto json = nlohmann::json::parse(invocation.command.payload, nullptr, false);
    std::string wrong = json.is_object() ? "" : std::string("expected a JSON object, got ") + json.type_name();
    if (json.is_object()) {
      for (const auto& [name, value] : json.items())
        if (name != "voucher") wrong = std::string(beginning_of(name, 64)) + ": unknown field";
      if (!json.contains("voucher"))
        wrong = "voucher: is missing";
      else if (!json["voucher"].is_string())
        wrong = std::string("voucher: expected text, got ") + json["voucher"].type_name();
    }
    if (!wrong.empty()) {
      Failure refused(FailureKind::invalid_argument, "bad_payload", wrong);
      co_return rpc::Answer::of(std::move(refused));
    }
    const std::string id = json["voucher"].get<std::string>();
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
    // A name that an earlier version imported may be no UTF-8.
    Reply reply = Reply::ok(body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    co_return rpc::Answer::of(reply);
  }

  const VoucherOptions options_;
  store::Store* store_ = nullptr;
  std::unique_ptr<rpc::Client> codes_, users_;
  std::unique_ptr<CodeSupply> supply_;
  std::unique_ptr<Downstream> downstream_;
  Holder leases_as_;
  std::unique_ptr<resilience::HotKeys> caller_limit_, region_limit_;
  std::unique_ptr<Distribution> distribution_;
};

}  // namespace

std::unique_ptr<server::App> make_app(VoucherOptions options) {
  return std::make_unique<VoucherApp>(std::move(options));
}

}  // namespace sluice::voucher
