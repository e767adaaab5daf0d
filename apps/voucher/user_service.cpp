#include "apps/voucher/user_service.hpp"

#include <nlohmann/json.hpp>

#include "voucher/v1/users.pb.h"

#include "apps/voucher/rows.hpp"

namespace sluice::voucher {
namespace {

using Json = nlohmann::json;
using rpc::Answer;

constexpr std::size_t kMaxUsers = 1000;

class UserService final : public server::App {
 public:
  explicit UserService(FaultPlan faults) : from_start_(std::move(faults)) {}
  std::string_view name() const noexcept override { return "users"; }
  Status install(server::AppContext& context) override {
    store_ = &context.store;
    faults_ = std::make_unique<Faults>(context.clock, context.random);
    faults_->set(from_start_);
    rpc::CommandSpec exists;
    exists.name = kUserExists;
    exists.summary = "Whether each of these users exists, in the order asked.";
    exists.app = "voucher";
    exists.idempotency = rpc::KeyUse::none;
    exists.input_schema =
        R"({"type":"object","properties":{"region":{"type":"string"},)"
        R"("users":{"type":"array","maxItems":1000,"items":{"type":"string"}}}})";
    exists.handler = faults_->around([this](rpc::Invocation& invocation) { invocation.run_task(answer(invocation)); });
    SLUICE_TRY(context.registry.add(std::move(exists)));
    context.grpc.bind(::voucher::v1::ExistsRequest::descriptor()->file()->service(0)->full_name() + "/Exists",
                      std::string(kUserExists));
    return faults_->add_commands(context.registry, "users");
  }

 private:
  Task<Answer> answer(rpc::Invocation& invocation) {
    const Json json = Json::parse(invocation.command.payload, nullptr, false);
    const auto users = json.is_object() ? json.find("users") : json.end();
    store::GetRows query;
    // A list of none is left out of a message on the typed door.
    bool good = json.is_object() && (users == json.end() || (users->is_array() && users->size() <= kMaxUsers));
    if (good && users != json.end())
      for (const auto& user : *users) {
        good = good && user.is_string() && valid_id(user.get_ref<const std::string&>());
        if (good) query.keys.push_back(user_key(invocation.command.ns.text(), user.get_ref<const std::string&>()));
      }
    if (!good) {
      Failure why(FailureKind::invalid_argument, "bad_request", "users: expected a list of at most 1000 user ids");
      co_return Answer::of(std::move(why));
    }
    auto asking = store::ask(*store_, std::move(query));
    auto rows = co_await asking;
    if (!rows) co_return Answer::of(rows.error());
    Json out = Json::array();
    for (const auto& row : *rows) out.push_back(row.has_value());
    const Json body{{"exists", std::move(out)}};
    const Reply reply = Reply::ok(body.dump());
    co_return Answer::of(reply);
  }

  const FaultPlan from_start_;
  store::Store* store_ = nullptr;
  std::unique_ptr<Faults> faults_;
};

}  // namespace

std::unique_ptr<server::App> make_user_service(FaultPlan faults) {
  return std::make_unique<UserService>(std::move(faults));
}

}  // namespace sluice::voucher
