// A gRPC service made at run time from a table of methods: what generated code does for methods
// known when compiling.
#pragma once
#include <grpcpp/impl/rpc_service_method.h>
#include <grpcpp/impl/service_type.h>
#include <grpcpp/impl/codegen/server_callback_handlers.h>

#include <deque>
#include <functional>
#include <string>

namespace sluice::transport {

class RawService final : public grpc::Service {
 public:
  using Begin = std::function<grpc::ServerUnaryReactor*(
      grpc::CallbackServerContext*, const grpc::ByteBuffer*, grpc::ByteBuffer*)>;

  using BeginStream = std::function<grpc::ServerReadReactor<grpc::ByteBuffer>*(grpc::CallbackServerContext*,
                                                                               grpc::ByteBuffer*)>;

  /// `path` is "/package.Service/Method". All methods of one RawService are of one service.
  void add(std::string path, Begin begin) {
    paths_.push_back(std::move(path));
    AddMethod(new grpc::internal::RpcServiceMethod(
        paths_.back().c_str(), grpc::internal::RpcMethod::NORMAL_RPC, nullptr));
    MarkMethodRawCallback(
        static_cast<int>(paths_.size()) - 1,
        new grpc::internal::CallbackUnaryHandler<grpc::ByteBuffer, grpc::ByteBuffer>(
            std::move(begin)));
  }
  void add_client_stream(std::string path, BeginStream begin) {
    paths_.push_back(std::move(path));
    AddMethod(new grpc::internal::RpcServiceMethod(
        paths_.back().c_str(), grpc::internal::RpcMethod::CLIENT_STREAMING, nullptr));
    MarkMethodRawCallback(
        static_cast<int>(paths_.size()) - 1,
        new grpc::internal::CallbackClientStreamingHandler<grpc::ByteBuffer, grpc::ByteBuffer>(
            std::move(begin)));
  }

 private:
  std::deque<std::string> paths_;  // gRPC keeps pointers into it
};

}  // namespace sluice::transport
