// Umbrella of the store room.
#pragma once
#include "sluice/store/commit.hpp"
#include "sluice/store/rows.hpp"
#include "sluice/store/store.hpp"
