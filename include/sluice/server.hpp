// Umbrella of the server room: a service of one's own.
#pragma once
#include "sluice/rpc/flow_handler.hpp"
#include "sluice/server/app.hpp"
#include "sluice/server/config.hpp"
#include "sluice/server/server.hpp"
