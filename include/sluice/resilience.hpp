// Umbrella of the resilience room.
#pragma once
#include "sluice/resilience/retry.hpp"
