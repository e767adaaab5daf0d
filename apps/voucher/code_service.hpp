// The code service: owns the pre-generated codes and leases disjoint segments of them to the
// distribution services. A process of its own, with a store of its own (`sluice serve --apps codes`).
//
// voucher.code.batch_get_code_using_cache, per voucher:
//   resume   the segments this owner holds already, as after its restart
//   else     a segment of this owner's store whose lease ran out (with the next fencing token), or a new one
//   else     none, and with it when the first lease ends, unless every code is assigned
// A long answer is cut: what is resumed beyond kMaxCodesPerAnswer is told at the next question.
// A segment may hold codes that were assigned before its lease ran out: whoever takes it asks the
// distribution store, where an assignment is a unique insert. So no other store ever gets it.
#pragma once
#include <memory>

#include "apps/voucher/faults.hpp"
#include "sluice/server/app.hpp"

namespace sluice::voucher {

inline constexpr std::string_view kGetCodes = "voucher.code.batch_get_code_using_cache";
inline constexpr std::size_t kMaxVouchersPerCall = 500;
inline constexpr std::int64_t kMaxCodesPerSegment = 10'000;
/// Of one answer, or no more than a segment beyond: it stays far below the 4 MB that gRPC receives.
inline constexpr std::int64_t kMaxCodesPerAnswer = 10'000;

struct CodeServiceOptions {
  milliseconds lease = std::chrono::minutes(10);  ///< of a segment, renewed by `resume`
  FaultPlan faults;                               ///< from the start
};

std::unique_ptr<server::App> make_code_service(CodeServiceOptions options = {});

}  // namespace sluice::voucher
