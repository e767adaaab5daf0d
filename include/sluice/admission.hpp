// Umbrella of the admission room.
#pragma once
#include "sluice/admission/gate.hpp"
