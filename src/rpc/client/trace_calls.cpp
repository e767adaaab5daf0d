#include "sluice/base/bytes.hpp"
#include "sluice/rpc/interceptors.hpp"

namespace sluice::rpc {

namespace {

// version-trace-parent-flags. Source: W3C Trace Context, section 3.2.
constexpr std::size_t kTraceSize = 55, kTraceAt = 3, kTraceDigits = 32, kFlagsAt = 53;

class TraceCalls final : public Interceptor {
 public:
  explicit TraceCalls(Random& random) : random_(random) {}
  std::string_view name() const noexcept override { return "trace"; }

  Task<Result<Response>> intercept(const RemoteCommand&, const CallContext& context,
                                   const Request& request, Next next) override {
    CallContext mine = context;
    const bool known = context.trace.size() == kTraceSize;
    const std::string trace = known ? context.trace.substr(kTraceAt, kTraceDigits) : hex(16);
    mine.trace = "00-" + trace + "-" + hex(8) + "-" +
                 (known ? context.trace.substr(kFlagsAt) : std::string("00"));
    Task<Result<Response>> rest = next(mine, request);
    Result<Response> response = co_await rest;
    co_return response;
  }

 private:
  std::string hex(std::size_t bytes) {
    std::string raw;
    ByteWriter writer(raw);
    while (raw.size() < bytes) writer.u64(random_.next() | 1);  // all zeroes is no id
    return to_hex(raw);
  }
  Random& random_;
};

}  // namespace

std::shared_ptr<Interceptor> trace_calls(Random& random) {
  return std::make_shared<TraceCalls>(random);
}

}  // namespace sluice::rpc
