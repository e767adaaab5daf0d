#include "store/sqlite/files_vfs.hpp"

#include <array>
#include <cstring>
#include <map>
#include <vector>

namespace sluice::store {
namespace {

// What all connections to one file share. Lock levels as in SQLite's pager (lockingv3.html).
struct Shared {
  int readers = 0;               // connections at SHARED or above
  const void* writer = nullptr;  // the one at RESERVED or above
  int writer_level = SQLITE_LOCK_NONE;
  struct ShmSlot {
    int shared = 0;
    bool exclusive = false;
  };
  std::array<ShmSlot, SQLITE_SHM_NLOCK> shm_slots{};
  std::vector<std::unique_ptr<std::array<char, 32768>>> shm_regions;
  int shm_users = 0;
};

struct OpenFile {
  sqlite3_file base;  // first, SQLite casts
  FilesVfs::State* vfs;
  std::unique_ptr<File> file;
  std::shared_ptr<Shared> shared;
  std::string path;
  int level;
  bool uses_shm;
  bool remove_on_close;
};

}  // namespace

struct FilesVfs::State {
  sqlite3_vfs vfs{};
  Files* files = nullptr;
  Clock* clock = nullptr;
  Random* random = nullptr;
  std::map<std::string, std::weak_ptr<Shared>> shared;
};

namespace {

OpenFile& self(sqlite3_file* file) noexcept { return *reinterpret_cast<OpenFile*>(file); }
FilesVfs::State& state(sqlite3_vfs* vfs) noexcept {
  return *static_cast<FilesVfs::State*>(vfs->pAppData);
}
int code_of(const Failure& failure, int otherwise) noexcept {
  return failure.code() == "disk_full" ? SQLITE_FULL : otherwise;
}

// --- Plain input and output --------------------------------------------------------------------
int close_file(sqlite3_file* file) {
  OpenFile& open = self(file);
  if (open.remove_on_close) static_cast<void>(open.vfs->files->remove(open.path, false));
  open.~OpenFile();
  return SQLITE_OK;
}
int read_file(sqlite3_file* file, void* out, int size, sqlite3_int64 offset) {
  const auto got = self(file).file->read_at(static_cast<std::uint64_t>(offset), out,
                                            static_cast<std::size_t>(size));
  if (!got) return SQLITE_IOERR_READ;
  if (*got == static_cast<std::size_t>(size)) return SQLITE_OK;
  std::memset(static_cast<char*>(out) + *got, 0, static_cast<std::size_t>(size) - *got);
  return SQLITE_IOERR_SHORT_READ;
}
int write_file(sqlite3_file* file, const void* data, int size, sqlite3_int64 offset) {
  const ByteView bytes(static_cast<const char*>(data), static_cast<std::size_t>(size));
  const Status done = self(file).file->write_at(static_cast<std::uint64_t>(offset), bytes);
  return done ? SQLITE_OK : code_of(done.error(), SQLITE_IOERR_WRITE);
}
int truncate_file(sqlite3_file* file, sqlite3_int64 size) {
  const Status done = self(file).file->truncate(static_cast<std::uint64_t>(size));
  return done ? SQLITE_OK : SQLITE_IOERR_TRUNCATE;
}
int sync_file(sqlite3_file* file, int) {
  return self(file).file->sync() ? SQLITE_OK : SQLITE_IOERR_FSYNC;
}
int file_size(sqlite3_file* file, sqlite3_int64* size) {
  const auto found = self(file).file->size();
  if (!found) return SQLITE_IOERR_FSTAT;
  *size = static_cast<sqlite3_int64>(*found);
  return SQLITE_OK;
}

// --- Locks between connections -------------------------------------------------------------------
int lock_file(sqlite3_file* file, int level) {
  OpenFile& open = self(file);
  Shared& shared = *open.shared;
  if (level <= open.level) return SQLITE_OK;
  const bool mine = shared.writer == &open;
  if (shared.writer != nullptr && !mine) {
    const bool shuts_out = shared.writer_level >= SQLITE_LOCK_PENDING;
    if (level > SQLITE_LOCK_SHARED || shuts_out) return SQLITE_BUSY;
  }
  if (open.level == SQLITE_LOCK_NONE) ++shared.readers;
  open.level = std::max(open.level, SQLITE_LOCK_SHARED);
  if (level == SQLITE_LOCK_SHARED) return SQLITE_OK;
  shared.writer = &open;
  const bool blocked = level == SQLITE_LOCK_EXCLUSIVE && shared.readers > 1;
  open.level = shared.writer_level = blocked ? SQLITE_LOCK_PENDING : level;
  return blocked ? SQLITE_BUSY : SQLITE_OK;
}
int unlock_file(sqlite3_file* file, int level) {
  OpenFile& open = self(file);
  Shared& shared = *open.shared;
  if (level >= open.level) return SQLITE_OK;
  if (shared.writer == &open) {
    shared.writer = nullptr;
    shared.writer_level = SQLITE_LOCK_NONE;
  }
  if (level == SQLITE_LOCK_NONE) --shared.readers;
  open.level = level;
  return SQLITE_OK;
}
int check_reserved_lock(sqlite3_file* file, int* held) {
  *held = self(file).shared->writer != nullptr ? 1 : 0;
  return SQLITE_OK;
}

// --- The index of the write-ahead log, in memory
// ---------------------------------------------------
int shm_map(sqlite3_file* file, int region, int size, int extend, void volatile** out) {
  OpenFile& open = self(file);
  auto& regions = open.shared->shm_regions;
  SLUICE_ASSERT(size == 32768, "SQLite asks for shared memory regions of another size");
  if (!open.uses_shm) {
    open.uses_shm = true;
    ++open.shared->shm_users;
  }
  const auto at = static_cast<std::size_t>(region);
  *out = nullptr;
  if (at >= regions.size() && extend == 0) return SQLITE_OK;
  while (regions.size() <= at) {
    regions.push_back(std::make_unique<std::array<char, 32768>>());
    regions.back()->fill(0);
  }
  *out = regions[at]->data();
  return SQLITE_OK;
}
int shm_lock(sqlite3_file* file, int first, int count, int flags) {
  auto& slots = self(file).shared->shm_slots;
  const auto range = [&](auto visit) {
    for (int i = first; i < first + count; ++i) visit(slots[static_cast<std::size_t>(i)]);
  };
  const bool exclusive = (flags & SQLITE_SHM_EXCLUSIVE) != 0;
  if ((flags & SQLITE_SHM_UNLOCK) != 0) {
    range([&](Shared::ShmSlot& slot) {
      if (exclusive)
        slot.exclusive = false;
      else if (slot.shared > 0)
        --slot.shared;
    });
    return SQLITE_OK;
  }
  bool busy = false;
  range([&](const Shared::ShmSlot& slot) {
    busy = busy || slot.exclusive || (exclusive && slot.shared > 0);
  });
  if (busy) return SQLITE_BUSY;
  range([&](Shared::ShmSlot& slot) {
    if (exclusive)
      slot.exclusive = true;
    else
      ++slot.shared;
  });
  return SQLITE_OK;
}
void shm_barrier(sqlite3_file*) {}
int shm_unmap(sqlite3_file* file, int) {
  OpenFile& open = self(file);
  if (!open.uses_shm) return SQLITE_OK;
  open.uses_shm = false;
  if (--open.shared->shm_users == 0) {
    open.shared->shm_regions.clear();
    open.shared->shm_slots = {};
  }
  return SQLITE_OK;
}

int file_control(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
int sector_size(sqlite3_file*) { return 512; }
// Nothing is promised: no atomic writes, no safe append, no overwrite that spares its neighbours.
int device_characteristics(sqlite3_file*) { return 0; }

constexpr sqlite3_io_methods kMethods = {
    .iVersion = 2,
    .xClose = close_file,
    .xRead = read_file,
    .xWrite = write_file,
    .xTruncate = truncate_file,
    .xSync = sync_file,
    .xFileSize = file_size,
    .xLock = lock_file,
    .xUnlock = unlock_file,
    .xCheckReservedLock = check_reserved_lock,
    .xFileControl = file_control,
    .xSectorSize = sector_size,
    .xDeviceCharacteristics = device_characteristics,
    .xShmMap = shm_map,
    .xShmLock = shm_lock,
    .xShmBarrier = shm_barrier,
    .xShmUnmap = shm_unmap,
    .xFetch = nullptr,
    .xUnfetch = nullptr,
};

// --- The file system -----------------------------------------------------------------------------
int open_file(sqlite3_vfs* vfs, const char* name, sqlite3_file* out, int flags, int* out_flags) {
  FilesVfs::State& s = state(vfs);
  out->pMethods = nullptr;
  const std::string path = name != nullptr ? name : "temporary-" + std::to_string(s.random->next());
  const OpenMode mode = (flags & SQLITE_OPEN_CREATE) != 0     ? OpenMode::create
                        : (flags & SQLITE_OPEN_READONLY) != 0 ? OpenMode::read
                                                              : OpenMode::read_write;
  auto opened = s.files->open(path, mode);
  if (!opened) return SQLITE_CANTOPEN;
  auto shared = s.shared[path].lock();
  if (!shared) s.shared[path] = shared = std::make_shared<Shared>();
  new (out) OpenFile{.base = {&kMethods},
                     .vfs = &s,
                     .file = std::move(*opened),
                     .shared = std::move(shared),
                     .path = path,
                     .level = SQLITE_LOCK_NONE,
                     .uses_shm = false,
                     .remove_on_close = (flags & SQLITE_OPEN_DELETEONCLOSE) != 0};
  if (out_flags != nullptr) *out_flags = flags;
  return SQLITE_OK;
}
int delete_file(sqlite3_vfs* vfs, const char* name, int sync_directory) {
  const Status removed = state(vfs).files->remove(name, sync_directory != 0);
  if (removed) return SQLITE_OK;
  return removed.error().kind() == FailureKind::not_found ? SQLITE_IOERR_DELETE_NOENT
                                                          : SQLITE_IOERR_DELETE;
}
int access_file(sqlite3_vfs* vfs, const char* name, int, int* exists) {
  const auto found = state(vfs).files->exists(name);
  if (!found) return SQLITE_IOERR_ACCESS;
  *exists = *found ? 1 : 0;
  return SQLITE_OK;
}
int full_pathname(sqlite3_vfs*, const char* name, int size, char* out) {
  sqlite3_snprintf(size, out, "%s", name);
  return SQLITE_OK;
}
int randomness(sqlite3_vfs* vfs, int size, char* out) {
  for (int i = 0; i < size; ++i) out[i] = static_cast<char>(state(vfs).random->next());
  return size;
}
// Waiting for a lock cannot help when there is one thread: whoever holds it is further down the
// stack. SQLite counts the sleeps and gives up.
int sleep_micros(sqlite3_vfs*, int micros) { return micros; }
int current_time(sqlite3_vfs* vfs, sqlite3_int64* now) {
  constexpr std::int64_t kJulianEpochMs = 210866760000000;  // of 1970-01-01, sqlite.org/c3ref/vfs
  *now = kJulianEpochMs + state(vfs).clock->wall().time_since_epoch().count();
  return SQLITE_OK;
}
int current_time_days(sqlite3_vfs* vfs, double* now) {
  sqlite3_int64 ms = 0;
  current_time(vfs, &ms);
  *now = static_cast<double>(ms) / 86400000.0;
  return SQLITE_OK;
}
int last_error(sqlite3_vfs*, int, char*) { return 0; }

}  // namespace

FilesVfs::FilesVfs(Files& files, Clock& clock, Random& random)
    : name_("sluice-files-" + std::to_string(reinterpret_cast<std::uintptr_t>(this))),
      state_(std::make_unique<State>()) {
  state_->files = &files;
  state_->clock = &clock;
  state_->random = &random;
  sqlite3_vfs& vfs = state_->vfs;
  vfs.iVersion = 2;
  vfs.szOsFile = sizeof(OpenFile);
  vfs.mxPathname = 512;
  vfs.zName = name_.c_str();
  vfs.pAppData = state_.get();
  vfs.xOpen = open_file;
  vfs.xDelete = delete_file;
  vfs.xAccess = access_file;
  vfs.xFullPathname = full_pathname;
  vfs.xRandomness = randomness;
  vfs.xSleep = sleep_micros;
  vfs.xCurrentTime = current_time_days;
  vfs.xGetLastError = last_error;
  vfs.xCurrentTimeInt64 = current_time;
  // SQLite draws the salts of its log from one generator, seeded by the default VFS when empty.
  sqlite3_vfs* const before = sqlite3_vfs_find(nullptr);
  sqlite3_vfs_register(&vfs, 1);
  sqlite3_randomness(0, nullptr);
  char byte = 0;
  sqlite3_randomness(1, &byte);
  sqlite3_vfs_register(before, 1);
}

FilesVfs::~FilesVfs() { sqlite3_vfs_unregister(&state_->vfs); }

}  // namespace sluice::store
