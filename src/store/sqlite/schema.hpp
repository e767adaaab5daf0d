// The tables and their versioned migrations. A migration, once released, is never edited.
#pragma once
#include "store/sqlite/database.hpp"

namespace sluice::store {

/// "SLUC": tells our databases from other programs' files.
inline constexpr std::int64_t kApplicationId = 0x534C5543;

/// Creates or upgrades the schema, one transaction a version. Fails corrupt when the file belongs
/// to another program or to a newer version of this one.
Status migrate(sqlite3* handle);

}  // namespace sluice::store
