// What stood where the database is to be, before it was opened, and what the opening found it to be.
#pragma once
#include "sluice/base/log.hpp"
#include "sluice/server/config.hpp"
#include "sluice/store/store.hpp"

namespace sluice::server {

enum class Found : std::uint8_t { database, empty_file, nothing };

/// Of a store that is no file: `database`.
Found look_for_database(const Config& config);

/// A path that is misspelt, or a file that has lost what it held, is a new store, and one that was moved or restored is
/// another: that must not go unsaid. Nor that a file which the configuration names is not what is used.
void tell_what_was_found(Found found, store::Store& store, const Config& config, Logger& logger);

}  // namespace sluice::server
