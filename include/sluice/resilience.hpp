// Umbrella of the resilience room.
#pragma once
#include "sluice/resilience/adaptive_limit.hpp"
#include "sluice/resilience/block.hpp"
#include "sluice/resilience/breaker.hpp"
#include "sluice/resilience/bulkhead.hpp"
#include "sluice/resilience/guards.hpp"
#include "sluice/resilience/hot_keys.hpp"
#include "sluice/resilience/protector.hpp"
#include "sluice/resilience/rate_limiter.hpp"
#include "sluice/resilience/retry.hpp"
#include "sluice/resilience/rule.hpp"
#include "sluice/resilience/throttle.hpp"
#include "sluice/resilience/warm_up.hpp"
