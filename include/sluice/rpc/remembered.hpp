// Which failures a retry with the same key is told again, instead of being run.
#pragma once
#include "sluice/base/failure.hpp"

namespace sluice::rpc {

/// What the failure table stores, and what may have happened: in doubt, pending and unknown are told
/// as they are, because running again could take effect twice.
inline bool remembered(const Failure& failure) noexcept {
  switch (failure.kind()) {
    case FailureKind::unknown_outcome:
    case FailureKind::in_doubt:
    case FailureKind::pending: return true;
    default: return failure.traits().remember == Remember::store;
  }
}

}  // namespace sluice::rpc
