// Umbrella of the flow room.
#pragma once
#include "sluice/flow/flow.hpp"
