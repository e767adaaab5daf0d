#include "crash/crash_app.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "sluice/rpc/flow_handler.hpp"

namespace sluice::crash {
namespace {

// Longer than any campaign, shorter than its nodes' clocks are apart.
constexpr milliseconds kKeysKept = std::chrono::hours(3);

class PartnerStage final : public flow::Stage {
 public:
  PartnerStage(FilePartner& partner, Hang hang) : partner_(partner), hang_(hang) {}
  std::string_view name() const noexcept override { return "partner"; }
  flow::Effect effect() const noexcept override { return flow::Effect::external; }
  bool asynchronous() const noexcept override { return true; }
  bool has_commit() const noexcept override { return true; }
  bool has_abort() const noexcept override { return true; }
  Task<Result<flow::Vote>> prepare_task(flow::Exchange& exchange) override {
    SLUICE_ASSERT(partner_.note('R', exchange.token()).has_value(), "the partner's log");
    if (hang_.at == Hang::At::reserving) {
      auto hanging = hang();
      co_await hanging;
    }
    co_return flow::Vote::continue_();
  }
  Task<Status> commit_task(flow::Exchange& exchange) override {
    if (hang_.at == Hang::At::committing) {
      auto hanging = hang();
      co_await hanging;
    }
    co_return partner_.note('C', exchange.token());
  }
  Task<Status> abort_task(flow::Exchange& exchange, bool) override {
    co_return partner_.note('X', exchange.token());
  }

 private:
  Task<void> hang() {
    ++*hang_.waiting;
    (void)co_await sleep_for(seconds(3600));
  }
  FilePartner& partner_;
  const Hang hang_;
};

Result<flow::Vote> book(flow::Exchange& exchange) {
  const auto json = nlohmann::json::parse(exchange.request(), nullptr, false);
  if (!json.is_object() || !json.contains("from") || !json.contains("to"))
    return fail(FailureKind::invalid_argument, "bad_payload", "expected {\"from\": n, \"to\": n}");
  exchange.draft().take(account(json["from"]), 1, "insufficient");
  exchange.draft().add(account(json["to"]), 1);
  exchange.respond(Reply::ok(R"({"exchange":")" + to_string(exchange.id()) + "\"}"));
  return flow::Vote::continue_();
}

Task<rpc::Answer> read_balance(store::Store& store, std::string payload) {
  const auto json = nlohmann::json::parse(payload, nullptr, false);
  store::GetRows query;
  query.keys.push_back(account(json["account"]));
  auto asking = store::ask(store, std::move(query));
  auto rows = co_await asking;
  if (!rows) co_return rpc::Answer::of(rows.error());
  const Reply reply = Reply::ok(R"({"balance":)" + std::to_string(rows->front() ? rows->front()->number : 0) + "}");
  co_return rpc::Answer::of(reply);
}

class CrashApp final : public server::App {
 public:
  explicit CrashApp(const std::string& path) : partner_(path) {}
  std::string_view name() const noexcept override { return "crash"; }
  Status install(server::AppContext& context) override {
    transfer_ = make_transfer(context.store, partner_);
    move_ = make_move(context.store);
    SLUICE_TRY(add(context, "crash.transfer", "Moves one from an account to another, with an outside partner.", *transfer_));
    SLUICE_TRY(add(context, "crash.move", "Moves one from an account to another.", *move_));
    rpc::CommandSpec balance;
    balance.name = "crash.balance";
    balance.summary = "What an account holds: {\"account\": n}.";
    balance.app = "crash";
    balance.idempotency = rpc::KeyUse::none;
    balance.handler = [store = &context.store](rpc::Invocation& invocation) {
      invocation.run_task(read_balance(*store, invocation.command.payload));
    };
    return context.registry.add(std::move(balance));
  }

 private:
  static std::unique_ptr<flow::Flow> make_move(store::Store& store) {
    flow::FlowOptions options;
    options.store = &store;
    auto made = std::make_unique<flow::Flow>("crash.move", std::move(options));
    made->group("main", {flow::func("book", book)});
    return made;
  }
  static Status add(server::AppContext& context, const char* name, const char* summary, flow::Flow& flow) {
    context.flows.add(flow);
    rpc::CommandSpec spec;
    spec.name = name;
    spec.summary = summary;
    spec.app = "crash";
    spec.idempotency = rpc::KeyUse::required;
    spec.keys.ttl = kKeysKept;
    spec.handler = rpc::flow_handler(flow);
    return context.registry.add(std::move(spec));
  }

  FilePartner partner_;
  std::unique_ptr<flow::Flow> transfer_, move_;
};

}  // namespace

namespace {
constexpr std::size_t kLine = 64;  // divides a page
}

FilePartner::FilePartner(const std::string& path)
    : file_(open(path.c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600)) {
  SLUICE_ASSERT(file_ >= 0, "the partner's log cannot be opened");
}
FilePartner::~FilePartner() { close(file_); }

Status FilePartner::note(char what, const std::string& token) {
  // A kill can end a write between two pages: of lines of this length none lies on both.
  std::string line = std::string(1, what) + ' ' + token;
  SLUICE_ASSERT(line.size() < kLine, "the partner's log has no line so long");
  line.resize(kLine - 1, ' ');
  line += '\n';
  if (write(file_, line.data(), line.size()) != static_cast<ssize_t>(line.size()))
    return fail(FailureKind::unavailable, "partner", "the partner's log takes no line");
  return {};
}

store::KvKey account(int number) { return {"crash", "account", std::to_string(number)}; }

std::unique_ptr<flow::Flow> make_transfer(store::Store& store, FilePartner& partner, Hang hang) {
  flow::FlowOptions options;
  options.store = &store;
  auto made = std::make_unique<flow::Flow>("crash.transfer", std::move(options));
  made->group("main", {flow::func("book", book), std::make_shared<PartnerStage>(partner, hang)});
  return made;
}

std::unique_ptr<server::App> make_app(const std::string& partner_path) {
  return std::make_unique<CrashApp>(partner_path);
}

}  // namespace sluice::crash
