#include "transport/grpc/whole_process.hpp"

#include <grpc/support/log.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>

#include <cstdlib>
#include <future>
#include <memory>

namespace sluice::transport {
namespace {

// Its first call, which is cancelled before it begins, takes the hold on the threads.
void keep_callback_threads() {
  grpc::ChannelArguments alone;
  alone.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  static const auto* const kept = new std::shared_ptr<grpc::Channel>(  // never destroyed
      grpc::CreateCustomChannel("ipv4:127.0.0.1:1", grpc::InsecureChannelCredentials(), alone));
  grpc::GenericStub stub(*kept);
  grpc::ClientContext context;
  context.TryCancel();
  grpc::Slice nothing;
  grpc::ByteBuffer request(&nothing, 1), response;
  const auto over = std::make_shared<std::promise<void>>();  // the callback may still be in it after the wait
  auto told = over->get_future();
  stub.UnaryCall(&context, "/sluice.v1.Commands/None", grpc::StubOptions(), &request, &response,
                 [over](const grpc::Status&) { over->set_value(); });
  told.wait();
}

}  // namespace

void prepare_grpc() {
  static const bool done = [] {
    if (std::getenv("GRPC_VERBOSITY") == nullptr) gpr_set_log_function([](gpr_log_func_args*) {});
    keep_callback_threads();
    return true;
  }();
  (void)done;
}

}  // namespace sluice::transport
