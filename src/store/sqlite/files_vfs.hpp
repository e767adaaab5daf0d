// SQLite over sluice::Files: databases in a file layer that the simulation can damage. Everything
// else in the process (locks between connections, the index of the write-ahead log) lives in
// memory and goes with the last connection, as it would with the process. One thread only.
#pragma once
#include <sqlite3.h>

#include <memory>
#include <string>

#include "sluice/base/files.hpp"
#include "sluice/base/random.hpp"
#include "sluice/base/time.hpp"

namespace sluice::store {

class FilesVfs {
 public:
  /// Registers a VFS of its own name; all three must outlive it. Also seeds SQLite's own random
  /// numbers (of the whole process) from `random`, so that the same seed writes the same bytes.
  FilesVfs(Files& files, Clock& clock, Random& random);
  /// All connections must be closed.
  ~FilesVfs();
  FilesVfs(const FilesVfs&) = delete;
  FilesVfs& operator=(const FilesVfs&) = delete;
  const char* name() const noexcept { return name_.c_str(); }

  struct State;

 private:
  std::string name_;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::store
