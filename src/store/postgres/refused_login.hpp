// What a server said that took no connection. libpq gives it as a text alone, in the language of the server; asked to
// be verbose (PQERRORS_VERBOSE) it puts the code in: "FATAL:  28P01: Passwort-Authentifizierung fehlgeschlagen …".
#pragma once
#include <string>
#include <string_view>

namespace sluice::store {

/// The code of a refusal, from the verbose text of all hosts that were tried. Where they differ, what passes by itself
/// is first: one may refuse for good what another will take in a moment. Without a code in it, by its English words.
std::string sqlstate_of(std::string_view verbose);
/// The text for people: without codes, source files and lines; UTF-8, whatever the server's encoding.
std::string words_of(std::string_view verbose);

}  // namespace sluice::store
