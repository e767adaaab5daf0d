// Umbrella of the idempotency room.
#pragma once
#include "sluice/idempotency/fingerprint.hpp"
#include "sluice/idempotency/key_header.hpp"
#include "sluice/idempotency/keys.hpp"
#include "sluice/idempotency/reply_store.hpp"
