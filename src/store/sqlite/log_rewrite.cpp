#include "store/sqlite/log_rewrite.hpp"

#include <algorithm>

namespace sluice::store {

Status rewrite_log(Files& files, const std::string& database) {
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  const std::string path = database + "-wal";
  SLUICE_ASSIGN(const bool there, files.exists(path));
  if (!there) return {};
  SLUICE_ASSIGN(const auto log, files.open(path, OpenMode::read_write));
  SLUICE_ASSIGN(const std::uint64_t size, log->size());
  if (size == 0) return {};
  Bytes piece(static_cast<std::size_t>(std::min<std::uint64_t>(size, kPiece)), '\0');
  for (std::uint64_t at = 0; at < size;) {
    SLUICE_ASSIGN(const std::size_t got, log->read_at(at, piece.data(), piece.size()));
    if (got == 0) break;
    SLUICE_TRY(log->write_at(at, ByteView(piece).substr(0, got)));
    at += got;
  }
  return log->sync();
}

}  // namespace sluice::store
