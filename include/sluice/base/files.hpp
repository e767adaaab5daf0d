// Files as the product sees them: real ones in base/runtime, simulated ones (that can lose, tear
// and reorder unsynced writes, fail, fill up and crash) in sim.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sluice/base/bytes.hpp"
#include "sluice/base/failure.hpp"

namespace sluice {

/// An open file. One thread at a time. Closed on destruction; closing does not sync.
class File {
 public:
  virtual ~File() = default;
  /// Reads up to `size` bytes; fewer only at the end of the file.
  virtual Result<std::size_t> read_at(std::uint64_t offset, void* out, std::size_t size) = 0;
  /// Writes all of it or fails; durable only after sync().
  virtual Status write_at(std::uint64_t offset, ByteView data) = 0;
  virtual Status truncate(std::uint64_t size) = 0;
  /// Durable on return. After a failure nothing written since the last sync may be trusted.
  virtual Status sync() = 0;
  virtual Result<std::uint64_t> size() = 0;
};

enum class OpenMode : std::uint8_t { read, read_write, create };

/// Failures carry the path and what to do: unavailable (full, I/O), not_found, forbidden.
class Files {
 public:
  virtual ~Files() = default;
  virtual Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) = 0;
  virtual Result<bool> exists(const std::string& path) = 0;
  /// Durable on return when `durable`.
  virtual Status remove(const std::string& path, bool durable) = 0;
  /// Atomic; durable on return.
  virtual Status rename(const std::string& from, const std::string& to) = 0;
};

}  // namespace sluice
