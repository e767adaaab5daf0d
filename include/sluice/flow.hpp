// Umbrella of the flow room.
#pragma once
#include "sluice/flow/combine.hpp"
#include "sluice/flow/flow.hpp"
#include "sluice/flow/recovery.hpp"
