// The user service: says which users exist. A process of its own, with a store of its own
// (`sluice serve --apps users`). voucher.user.exists: {"users":[...]} -> {"exists":[true,...]}.
#pragma once
#include <memory>

#include "apps/voucher/faults.hpp"
#include "sluice/server/app.hpp"

namespace sluice::voucher {

inline constexpr std::string_view kUserExists = "voucher.user.exists";

std::unique_ptr<server::App> make_user_service(FaultPlan faults = {});

}  // namespace sluice::voucher
