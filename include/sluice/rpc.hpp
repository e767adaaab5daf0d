// Commands by name (the inbound registry) and calls to other services (the outbound client).
#pragma once
#include "sluice/rpc/client.hpp"
#include "sluice/rpc/command.hpp"
#include "sluice/rpc/flow_handler.hpp"
#include "sluice/rpc/interceptors.hpp"
#include "sluice/rpc/registry.hpp"
