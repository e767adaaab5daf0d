#include "sluice/rpc/interceptors.hpp"

namespace sluice::rpc {

namespace {

class ShadowCalls final : public Interceptor {
 public:
  explicit ShadowCalls(ShadowOptions options) : options_(std::move(options)) {}
  std::string_view name() const noexcept override { return "shadow"; }

  Task<Result<Response>> intercept(const RemoteCommand& command, const CallContext& context,
                                   const Request& request, Next next) override {
    if (!context.shadow()) return next(context, request);
    return mark(command, context, request, next);
  }

 private:
  Task<Result<Response>> mark(const RemoteCommand& command, const CallContext& context,
                              const Request& request, Next next) {
    if (options_.reads_only && !command.read_only) {
      Failure refused(FailureKind::forbidden, "shadow_reads_only",
                      "shadow traffic may not call '" + command.name + "', which changes something");
      co_return fail(std::move(refused));
    }
    CallContext mine = context;
    mine.headers.emplace_back("x-sluice-shadow", "true");
    if (options_.channel) mine.channel = options_.channel.get();
    Task<Result<Response>> rest = next(mine, request);
    Result<Response> response = co_await rest;
    co_return response;
  }
  const ShadowOptions options_;
};

}  // namespace

std::shared_ptr<Interceptor> shadow_calls(ShadowOptions options) {
  return std::make_shared<ShadowCalls>(std::move(options));
}

}  // namespace sluice::rpc
