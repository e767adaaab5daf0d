// What gRPC does to the process as a whole.
#include "transport/grpc/whole_process.hpp"

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <future>

namespace sluice::transport {
namespace {

// Its threads would join themselves, and abort the process.
TEST(WholeProcess, the_last_channel_may_be_let_go_by_a_callback) {
  prepare_grpc();
  prepare_grpc();
  struct Call {
    std::shared_ptr<grpc::Channel> channel =
        grpc::CreateChannel("ipv4:127.0.0.1:1", grpc::InsecureChannelCredentials());
    grpc::GenericStub stub{channel};
    grpc::ClientContext context;
    grpc::Slice nothing;
    grpc::ByteBuffer request{&nothing, 1}, response;
  };
  for (int i = 0; i < 20; ++i) {
    auto call = std::make_unique<Call>();
    call->context.TryCancel();
    const auto gone = std::make_shared<std::promise<void>>();
    auto* const raw = call.release();
    raw->stub.UnaryCall(&raw->context, "/nobody/Home", grpc::StubOptions(), &raw->request, &raw->response,
                        [raw, gone](const grpc::Status& status) {
                          EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
                          delete raw;
                          gone->set_value();
                        });
    gone->get_future().wait();
  }
}

}  // namespace
}  // namespace sluice::transport
