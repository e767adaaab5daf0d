#include "transport/grpc/own_log.hpp"

#include <grpc/support/log.h>

#include <cstdlib>

namespace sluice::transport {

void hush_grpc() {
  static const bool done = [] {
    if (std::getenv("GRPC_VERBOSITY") == nullptr) gpr_set_log_function([](gpr_log_func_args*) {});
    return true;
  }();
  (void)done;
}

}  // namespace sluice::transport
