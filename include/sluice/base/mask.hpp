// Keeps secrets and card numbers out of logs. Pure functions over text; thread-safe.
#pragma once
#include <span>
#include <string>
#include <string_view>

namespace sluice {

/// What stands where a secret stood.
inline constexpr std::string_view kMasked = "***";

/// First six and last four digits of a card number (PCI DSS 3.4.1); anything shorter than 13
/// characters is hidden whole.
std::string mask_pan(std::string_view pan);

enum class Sensitivity : unsigned char { open, pan, secret };
/// What a field's name says about its value. Words are compared, not substrings: `card_pin` is
/// secret, `spinning` is not; `apiKey` is, `idempotency_key` is not.
Sensitivity sensitivity_of(std::string_view field_name) noexcept;

/// Masks every 13 to 19 digit number that passes the Luhn check (blanks and dashes between digits
/// allowed).
std::string mask_text(std::string_view text);

/// The value as it may be logged under this name.
std::string mask_field(std::string_view name, std::string_view value);

/// Masks values inside JSON text by the names of their fields, also nested ones, and card numbers
/// anywhere. Valid JSON stays valid. Text that is no JSON is masked as well as can be told; after
/// a secret name everything up to the next structural character is hidden. `secret_names`: further
/// fields to hide whole, by their exact names.
std::string mask_json(std::string_view json, std::span<const std::string> secret_names = {});

}  // namespace sluice
