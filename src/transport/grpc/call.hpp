// One unary gRPC call that is a command: from its bytes to an invocation on a lane, and back.
#pragma once
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>

#include "sluice/transport/grpc.hpp"
#include "transport/grpc/codec.hpp"
#include "transport/grpc/metadata.hpp"

namespace sluice::transport {

class Call;

/// The calls that live on one lane. Lane-only.
struct CallLane {
  Lane* lane = nullptr;
  Call* head = nullptr;
};

/// What the calls of one door share.
struct GrpcShared {
  rpc::Registry& registry;
  Clock& clock;
  const GrpcOptions options;
  GrpcHooks hooks;
  Logger& logger;
  std::vector<CallLane> lanes;
  std::atomic<bool> draining{false};
  std::array<std::atomic<std::uint64_t>, 2> running_of{};  // live, shadow: each has a bound of its own
  std::array<std::atomic<std::uint64_t>, 2> open_streams{};  // so have streams, which last longer
  std::atomic<std::uint64_t> running{0}, calls{0}, refused{0}, bad_requests{0}, cancelled{0};
  std::atomic<std::size_t> next_lane{0};
  std::array<Histogram*, 2> latency{};  // of live and of shadow calls

  /// How many of them may be at once.
  std::size_t most(bool of_shadow) const { return of_shadow ? std::max<std::size_t>(1, options.max_calls / kShadowShare) : options.max_calls; }
  /// What one more than that is told; `what`: "calls".
  Failure too_many(std::string_view what, bool of_shadow) const {
    return Failure(FailureKind::overloaded, "too_many_calls",
                   "this server has as many " + std::string(what) + " as it takes (" + std::to_string(most(of_shadow)) +
                       (of_shadow ? ", a quarter of grpc.max_calls for shadow traffic)" : ", grpc.max_calls)"))
        .with_retry_after(seconds(1));
  }
};

/// Deletes itself when both gRPC and the registry are done with it. The hooks of gRPC come on its
/// threads and only post; all else is the lane's.
class Call final : public grpc::ServerUnaryReactor {
 public:
  /// Takes the call up, or answers at once that it cannot. `codec` outlives the call.
  static grpc::ServerUnaryReactor* begin(const std::shared_ptr<GrpcShared>& door, const Codec& codec,
                                         grpc::CallbackServerContext& context,
                                         const grpc::ByteBuffer& request,
                                         grpc::ByteBuffer& response);

  void OnCancel() override;
  void OnDone() override { unref(); }

  // On the lane.
  void cancel(FailureKind reason) { invocation_.scope.cancel(reason); }
  /// Answers now, whatever its command does.
  void abandon();
  void ref() noexcept { refs_.fetch_add(1, std::memory_order_relaxed); }
  void unref() noexcept {
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
  Call* next() const noexcept { return next_; }

 private:
  struct CallJob : Job {
    Call* self = nullptr;
  };
  Call(std::shared_ptr<GrpcShared> shared, CallLane& lane, const Codec& codec, grpc::CallbackServerContext& context,
       const grpc::ByteBuffer& request, grpc::ByteBuffer& response, bool shadow);
  void start();
  Status decode();
  Failure told(Failure failure);
  Instant deadline() const;
  void answer(const rpc::Answer& answer);
  void answer_reply(const rpc::Answer& answer);
  void refuse(const Failure& failure, ExchangeId exchange = {});
  void finish(const grpc::Status& status);
  void note(const char* key, const std::string& value);

  const std::shared_ptr<GrpcShared> shared_;  // a command may end long after its door
  CallLane& lane_;
  const Codec& codec_;
  grpc::CallbackServerContext& context_;  // these three live until OnDone()
  const grpc::ByteBuffer& request_;
  grpc::ByteBuffer& response_;
  std::atomic<int> refs_{2};  // gRPC's and the start job's
  const bool shadow_;  // as the call says itself
  bool finished_ = false;
  Instant began_;
  Call* next_ = nullptr;
  Call** link_ = nullptr;
  CallJob start_job_, cancel_job_;
  rpc::Invocation invocation_;
};

}  // namespace sluice::transport
