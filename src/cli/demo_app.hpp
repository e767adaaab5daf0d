// An application for the demonstration: transactions that ask a partner outside, who takes his time.
#pragma once
#include <memory>

#include "sluice/server/app.hpp"

namespace sluice::cli {

/// Command demo.order {"key": text}: adds one to that row of kv.get's collection "demo", with a faked partner who
/// reserves, commits and aborts; his answer to a reservation takes 200 ms.
std::unique_ptr<server::App> make_demo_app();

}  // namespace sluice::cli
