#include "bench/bare_disk.hpp"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <stdexcept>

#include "bench/report.hpp"

namespace sluice::bench {

double bare_fdatasync(const std::string& path, int times) {
  const int fd = open(path.c_str(), O_CREAT | O_RDWR | O_APPEND, 0600);
  if (fd < 0) throw std::runtime_error("cannot open " + path);
  const std::string block(4096, 'x');
  const Stopwatch watch;
  for (int i = 0; i < times; ++i)
    if (write(fd, block.data(), block.size()) != 4096 || fdatasync(fd) != 0)
      throw std::runtime_error("cannot write " + path);
  const double seconds = watch.wall();
  close(fd);
  return seconds / times;
}

}  // namespace sluice::bench
