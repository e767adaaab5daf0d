// Voucher distribution as an application of the server.
#pragma once
#include <memory>

#include "sluice/server/app.hpp"

namespace sluice::voucher {

/// Adds `voucher.ss.distribution.batch_distribute_voucher` and `voucher.catalogue.get`.
std::unique_ptr<server::App> make_app();

}  // namespace sluice::voucher
