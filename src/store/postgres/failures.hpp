// What PostgreSQL's error codes mean to callers of the store.
#pragma once
#include <string>
#include <string_view>

#include "sluice/base/failure.hpp"

namespace sluice::store {

// Raised by our own functions; class SL is nobody else's.
inline constexpr std::string_view kRowsChanged = "SL001";  ///< a row read before is not as it was
inline constexpr std::string_view kWriterFenced = "SL002";  ///< another life of this writer has taken over
inline constexpr std::string_view kLockNotFree = "55P03";   ///< PostgreSQL's own: lock_timeout was over
inline constexpr std::string_view kTooLate = "SL003";       ///< evaluated too long ago

/// `where` names server and database, without secrets.
Failure postgres_failure(std::string_view sqlstate, std::string_view message, const std::string& where);
/// What was told to somebody who opens the store, and can do something about it: a login, a right, a database that is
/// missing is a refusal then. Callers of a store that is open are told that it is unavailable. `verb` is what to do
/// "once the database answers", or certificate and name fit.
Failure at_opening(const Failure& failure, std::string_view verb = "start it again");
/// What was told to be durable is not there.
Failure database_went_back();
/// The group may succeed when it is evaluated again on fresh rows, with nobody else writing.
bool worth_another_try(std::string_view sqlstate) noexcept;
/// Says that the session ends, or was cut off: not whether the COMMIT before it is done.
bool leaves_open(std::string_view sqlstate) noexcept;
/// Something in the rows themselves is refused: only one Commit of the group may be at fault.
bool fault_of_the_data(std::string_view sqlstate) noexcept;

}  // namespace sluice::store
