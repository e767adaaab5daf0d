#include "apps/voucher/csv.hpp"

#include <algorithm>

#include "fuzz/target.hpp"

using namespace sluice;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  // The first byte says how much the source gives at once.
  const std::size_t piece = data[0] + 1;
  auto rest = fuzz::text_of(data + 1, size - 1);
  const std::size_t whole = rest.size();
  voucher::CsvReader reader(
      [&](char* out, std::size_t room) -> Result<std::size_t> {
        const auto take = std::min({room, piece, rest.size()});
        rest.copy(out, take);
        rest.remove_prefix(take);
        return take;
      },
      "fuzz.csv", {"a", "b"}, {.max_field = 64});
  std::vector<std::string_view> fields;
  while (true) {
    const auto more = reader.next(fields);
    if (!more) {
      const auto again = reader.next(fields);
      fuzz::require(!again, "a failed reader goes on");
      break;
    }
    if (!*more) break;
    fuzz::require(fields.size() == 2, "a record without its columns");
    for (const auto field : fields) fuzz::require(field.size() <= 64, "a field past its bound");
    (void)reader.integer(0, 0, 100);
  }
  fuzz::require(reader.bytes_read() <= whole, "more bytes read than there are");
  return 0;
}
