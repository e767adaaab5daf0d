#include "sluice/rpc/interceptors.hpp"

namespace sluice::rpc {

namespace {

class MeasureCalls final : public Interceptor {
 public:
  explicit MeasureCalls(Metrics& metrics) : metrics_(metrics) {}
  std::string_view name() const noexcept override { return "metrics"; }

  Task<Result<Response>> intercept(const RemoteCommand& command, const CallContext& context,
                                   const Request& request, Next next) override {
    const TaskContext& task = co_await current_context();
    Clock& clock = task.lane->clock();
    const Instant began = clock.now();
    Task<Result<Response>> rest = next(context, request);
    Result<Response> response = co_await rest;
    const std::string traffic = context.shadow() ? "shadow" : "live";
    const std::string outcome(response ? "ok" : response.error().traits().name);
    const Labels counted{{"command", command.name}, {"traffic", traffic}, {"outcome", outcome}};
    const Labels timed{{"command", command.name}, {"traffic", traffic}};
    metrics_.counter("sluice_client_calls_total", "Calls of other services by their outcome", counted)
        .add();
    metrics_
        .histogram("sluice_client_seconds", "Calls of other services, retries and waits included",
                   timed)
        .observe(clock.now() - began);
    co_return response;
  }

 private:
  Metrics& metrics_;
};

}  // namespace

std::shared_ptr<Interceptor> measure_calls(Metrics& metrics) {
  return std::make_shared<MeasureCalls>(metrics);
}

}  // namespace sluice::rpc
