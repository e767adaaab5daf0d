// Makes a catalogue, its codes and users that look like a real campaign's. The same options give
// the same bytes on every machine.
#pragma once
#include <cstdint>
#include <functional>
#include <string_view>

#include "sluice/base/failure.hpp"

namespace sluice::voucher {

struct GeneratorOptions {
  std::uint64_t seed = 1;
  std::int64_t vouchers = 1'000;
  std::int64_t codes_per_voucher = 100;
  std::int64_t users = 5'000;
  /// The first this many vouchers are hot: open, for all regions, without daily limits.
  std::int64_t hot = 20;
  /// Of each hot one; 0: as many as its codes. Fewer: the stock alone ends its sale.
  std::int64_t hot_stock = 0;
  /// Windows lie around this day (days since 1970-01-01).
  std::int64_t today = 20'454;
};

/// Takes the next piece of the file; a failure ends the generation.
using TextSink = std::function<Status(std::string_view)>;

Status generate_vouchers(const GeneratorOptions& options, const TextSink& sink);
Status generate_codes(const GeneratorOptions& options, const TextSink& sink);
Status generate_users(const GeneratorOptions& options, const TextSink& sink);

std::string generated_voucher_id(std::int64_t n);
std::string generated_user_id(std::int64_t n);

}  // namespace sluice::voucher
