// What stood where the database is to be, before it was opened.
#pragma once
#include "sluice/base/log.hpp"
#include "sluice/server/config.hpp"

namespace sluice::server {

enum class Found : std::uint8_t { database, empty_file, nothing };

/// Of a store that is no file: `database`.
Found look_for_database(const Config& config);

/// A path that is misspelt, or a file that has lost what it held, is a new store: that must not go unsaid.
void tell_what_was_made(Found found, const Config& config, Logger& logger);

}  // namespace sluice::server
