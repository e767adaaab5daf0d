// Parameters of one statement in PostgreSQL's binary form: big-endian integers, raw bytes, and
// one-dimensional arrays of them.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "sluice/base/bytes.hpp"

namespace sluice::store {

class PgParams {
 public:
  // Type numbers of PostgreSQL's catalogue (pg_type.dat), stable since its first versions.
  static constexpr unsigned kBool = 16, kBytea = 17, kInt8 = 20, kInt4 = 23, kText = 25, kTid = 27, kXid = 28, kUuid = 2950;
  static constexpr unsigned kByteaArray = 1001, kInt8Array = 1016, kTidArray = 1010, kXidArray = 1011, kUuidArray = 2951;

  PgParams& integer(std::int64_t value) {
    begin(kInt8);
    big(static_cast<std::uint64_t>(value));
    return end();
  }
  PgParams& boolean(bool value) {
    begin(kBool);
    arena_.push_back(value ? '\1' : '\0');
    return end();
  }
  PgParams& bytes(ByteView value) {
    begin(kBytea);
    arena_.append(value);
    return end();
  }
  PgParams& uuid(ByteView sixteen) {
    begin(kUuid);
    arena_.append(sixteen);
    return end();
  }
  /// One element per item of `range`; `get` yields what the element type wants.
  template <class Range, class Get>
  PgParams& integers(const Range& range, Get get) {
    return array(kInt8Array, kInt8, range, [&](const auto& item) {
      big(std::uint32_t{8});
      big(static_cast<std::uint64_t>(get(item)));
    });
  }
  template <class Range, class Get>
  PgParams& xids(const Range& range, Get get) {
    return array(kXidArray, kXid, range, [&](const auto& item) {
      big(std::uint32_t{4});
      big(static_cast<std::uint32_t>(get(item)));
    });
  }
  /// A tid in binary form is a number of the block and one of the row in it.
  template <class Range, class Get>
  PgParams& tids(const Range& range, Get get) {
    return array(kTidArray, kTid, range, [&](const auto& item) {
      const std::uint64_t at = get(item);
      big(std::uint32_t{6});
      big(static_cast<std::uint32_t>(at >> 16));
      arena_.push_back(static_cast<char>(at >> 8));
      arena_.push_back(static_cast<char>(at));
    });
  }
  template <class Range, class Get>
  PgParams& byte_arrays(const Range& range, Get get) {
    return views(kByteaArray, kBytea, range, get);
  }
  template <class Range, class Get>
  PgParams& uuids(const Range& range, Get get) {
    return views(kUuidArray, kUuid, range, get);
  }

  std::size_t count() const noexcept { return types_.size(); }
  std::size_t bytes_used() const noexcept { return arena_.size(); }
  const unsigned* types() const noexcept { return types_.data(); }
  const int* lengths() const noexcept { return lengths_.data(); }
  const int* formats() {
    formats_.assign(types_.size(), 1);
    return formats_.data();
  }
  /// Valid until the next change.
  const char* const* values() {
    values_.clear();
    for (const std::size_t offset : offsets_) values_.push_back(arena_.data() + offset);
    return values_.data();
  }

 private:
  template <class Int>
  void big(Int value) {
    if constexpr (sizeof value == 8)
      value = __builtin_bswap64(value);
    else
      value = __builtin_bswap32(value);
    arena_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void begin(unsigned type) {
    types_.push_back(type);
    offsets_.push_back(arena_.size());
  }
  PgParams& end() {
    lengths_.push_back(static_cast<int>(arena_.size() - offsets_.back()));
    return *this;
  }
  template <class Range, class Put>
  PgParams& array(unsigned type, unsigned element, const Range& range, Put put) {
    begin(type);
    const auto size = static_cast<std::uint32_t>(std::size(range));
    big(std::uint32_t{size == 0 ? 0u : 1u});  // dimensions
    big(std::uint32_t{0});                    // no nulls
    big(std::uint32_t{element});
    if (size != 0) {
      big(size);
      big(std::uint32_t{1});  // lower bound
    }
    for (const auto& item : range) put(item);
    return end();
  }
  template <class Range, class Get>
  PgParams& views(unsigned type, unsigned element, const Range& range, Get get) {
    return array(type, element, range, [&](const auto& item) {
      const ByteView view = get(item);
      big(static_cast<std::uint32_t>(view.size()));
      arena_.append(view);
    });
  }

  Bytes arena_;
  std::vector<unsigned> types_;
  std::vector<std::size_t> offsets_;
  std::vector<int> lengths_, formats_;
  std::vector<const char*> values_;
};

}  // namespace sluice::store
