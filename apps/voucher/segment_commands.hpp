// What an operator of the code service sees and does about leased segments: voucher.code.segments.list and .free. A
// segment whose store never comes back is leased to nobody else; its codes stay held until somebody says what of it.
#pragma once
#include <memory>

#include "sluice/flow.hpp"
#include "sluice/server/app.hpp"

namespace sluice::voucher {

class SegmentCommands {
 public:
  explicit SegmentCommands(server::AppContext& context);
  Status add(server::AppContext& context);

 private:
  Task<rpc::Answer> list(rpc::Invocation& invocation);
  Task<Result<flow::Vote>> free(flow::Exchange& x);

  store::Store& store_;
  flow::Flow free_;
};

}  // namespace sluice::voucher
