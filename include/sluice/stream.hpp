// Everything of the stream room.
#pragma once
#include "sluice/stream/failure.hpp"
#include "sluice/stream/ledger.hpp"
#include "sluice/stream/options.hpp"
#include "sluice/stream/ordering.hpp"
#include "sluice/stream/pipeline.hpp"
