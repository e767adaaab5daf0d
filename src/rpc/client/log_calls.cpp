#include <atomic>

#include "sluice/base/mask.hpp"
#include "sluice/base/text.hpp"
#include "sluice/rpc/interceptors.hpp"

namespace sluice::rpc {

namespace {

class LogCalls final : public Interceptor {
 public:
  LogCalls(Logger& logger, CallLogOptions options) : logger_(logger), options_(std::move(options)) {}
  std::string_view name() const noexcept override { return "log"; }

  Task<Result<Response>> intercept(const RemoteCommand& command, const CallContext& context,
                                   const Request& request, Next next) override {
    const TaskContext& task = co_await current_context();
    Clock& clock = task.lane->clock();
    const Instant began = clock.now();
    Task<Result<Response>> rest = next(context, request);
    Result<Response> response = co_await rest;
    const bool sampled =
        response && options_.sample_every > 0 &&
        count_.fetch_add(1, std::memory_order_relaxed) % options_.sample_every == 0;
    if (response && !sampled) co_return response;
    const LogLevel level = response ? options_.level : LogLevel::warn;
    if (logger_.enabled(level)) {
      const auto took = std::chrono::duration_cast<microseconds>(clock.now() - began).count();
      const std::string asked = shown(command.request_type, *request.body);
      const std::string answer = response ? shown(command.response_type, *response->body)
                                          : response.error().to_string();
      logger_.log(level, response ? "a service was called" : "a call of a service failed",
                  {{"command", command.name},
                   {"namespace", context.ns.text()},
                   {"took_us", took},
                   {"request", asked},
                   {response ? "response" : "failure", answer}},
                  context.correlation);
    }
    co_return response;
  }

 private:
  std::string shown(const std::string& type, ByteView body) const {
    if (!type.empty() && !options_.show) return std::to_string(body.size()) + " bytes";
    // Masked before it is cut: half a number is no card number any more, but may still be told.
    std::string text = mask_json(type.empty() ? std::string(body) : options_.show(type, body), options_.secret_fields);
    if (text.size() <= options_.max_body_bytes) return text;
    text.resize(beginning_of(text, options_.max_body_bytes).size());
    return text + "… (" + std::to_string(body.size()) + " bytes)";
  }

  Logger& logger_;
  const CallLogOptions options_;
  std::atomic<std::uint64_t> count_{0};
};

}  // namespace

std::shared_ptr<Interceptor> log_calls(Logger& logger, CallLogOptions options) {
  return std::make_shared<LogCalls>(logger, std::move(options));
}

}  // namespace sluice::rpc
