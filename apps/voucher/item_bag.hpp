// What the stages of an item hand to each other, and how they say no.
#pragma once
#include "apps/voucher/distribution.hpp"

namespace sluice::voucher {

inline const flow::BagKey<Item> kItem{"item"};
inline const flow::BagKey<Voucher> kVoucher{"voucher"};
inline const flow::BagKey<std::int64_t> kDay{"day"};
inline const flow::BagKey<std::int64_t> kOrdinal{"ordinal"};
inline const flow::BagKey<std::string> kCodeText{"code_text"};
inline const flow::BagKey<std::shared_ptr<BatchCalls>> kTold{"told"};
inline const flow::BagKey<std::shared_ptr<HeldCode>> kHeld{"held"};

inline Reply refusal(std::string code, std::string detail) {
  Reply reply;
  reply.kind = FailureKind::precondition_failed;
  reply.code = std::move(code);
  reply.detail = std::move(detail);
  return reply;
}

// A decline: stored under the item's key like any reply.
inline Result<flow::Vote> decline(flow::Exchange& x, std::string code, std::string detail) {
  x.respond(refusal(code, std::move(detail)));
  x.abort(std::move(code));
  return flow::Vote::skip();
}

inline std::shared_ptr<BatchCalls> told_of(flow::Exchange& x) {
  auto* const found = x.get(kTold);
  return found != nullptr ? *found : nullptr;
}

}  // namespace sluice::voucher
