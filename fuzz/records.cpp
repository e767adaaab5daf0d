#include "flow/records.hpp"

#include <cstring>

#include "fuzz/target.hpp"

using namespace sluice;

namespace {

void read(ByteView row) {
  const auto records = flow::decode_row(row);
  if (!records) return;
  for (const auto& record : *records) {
    const Bytes once = flow::encode_row(record);
    const auto again = flow::decode_row(once);
    fuzz::require(again && again->size() == 1, "a decoded record does not read back");
    fuzz::require(flow::encode_row(again->front()) == once,
                  "a record changes when read and written");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes row(fuzz::text_of(data, size));
  read(row);
  if (size < 5) return 0;
  // With the checksum set right, so that what is behind it is reached.
  const std::uint32_t sum = crc32c(ByteView(row).substr(5));
  std::memcpy(row.data() + 1, &sum, sizeof sum);
  read(row);
  return 0;
}
