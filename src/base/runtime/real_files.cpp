// POSIX files with failures that say what, where and what to do.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "sluice/base/runtime.hpp"

namespace sluice {
namespace {

struct Explained {
  FailureKind kind;
  std::string_view code;
  std::string_view next;
};

Explained explain(int error) noexcept {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return {FailureKind::unavailable, "disk_full",
              "free space on that file system or point the configuration at another"};
    case EACCES:
    case EPERM:
      return {FailureKind::forbidden, "no_permission",
              "give the user that runs sluice access to this path and its directory"};
    case EROFS:
      return {FailureKind::forbidden, "read_only_file_system",
              "mount the file system writable or choose another directory"};
    case ENOENT:
      return {FailureKind::not_found, "no_such_file", "create it or correct the path"};
    case ENOTDIR:
    case EISDIR:
    case ENAMETOOLONG:
    case EINVAL:
      return {FailureKind::invalid_argument, "bad_path",
              "name a regular file in an existing directory"};
    case EMFILE:
    case ENFILE:
      return {FailureKind::overloaded, "too_many_open_files",
              "raise the limit of open files (ulimit -n)"};
    case EIO:
      return {FailureKind::unavailable, "io_error",
              "check the disk and the kernel log before trusting this file system"};
    default:
      return {FailureKind::unavailable, "file_error", "check the path and the disk"};
  }
}

std::unexpected<Failure> failed(std::string_view doing, std::string_view path, int error) {
  const Explained why = explain(error);
  std::string detail(doing);
  detail.append(" ").append(path).append(": ").append(std::strerror(error)).append("; ");
  detail.append(why.next);
  return fail(why.kind, why.code, std::move(detail));
}

template <class Call>
auto retry_interrupted(Call call) {
  for (;;) {
    const auto result = call();
    if (result >= 0 || errno != EINTR) return result;
  }
}

class RealFile final : public File {
 public:
  RealFile(int fd, std::string path) noexcept : fd_(fd), path_(std::move(path)) {}
  ~RealFile() override { ::close(fd_); }

  Result<std::size_t> read_at(std::uint64_t offset, void* out, std::size_t size) override {
    std::size_t done = 0;
    while (done < size) {
      const ssize_t got = retry_interrupted([&] {
        return ::pread(fd_, static_cast<char*>(out) + done, size - done,
                       static_cast<off_t>(offset + done));
      });
      if (got < 0) return failed("reading", path_, errno);
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    return done;
  }

  Status write_at(std::uint64_t offset, ByteView data) override {
    while (!data.empty()) {
      const ssize_t put = retry_interrupted(
          [&] { return ::pwrite(fd_, data.data(), data.size(), static_cast<off_t>(offset)); });
      if (put < 0) return failed("writing", path_, errno);
      offset += static_cast<std::uint64_t>(put);
      data.remove_prefix(static_cast<std::size_t>(put));
    }
    return {};
  }

  Status truncate(std::uint64_t size) override {
    if (retry_interrupted([&] { return ::ftruncate(fd_, static_cast<off_t>(size)); }) < 0)
      return failed("truncating", path_, errno);
    return {};
  }

  Status sync() override {
    // Not retried: after a failed fdatasync the kernel has dropped the dirty pages, and a second
    // call would report a success that never happened.
    if (::fdatasync(fd_) < 0) return failed("syncing", path_, errno);
    return {};
  }

  Result<std::uint64_t> size() override {
    struct stat info{};
    if (::fstat(fd_, &info) < 0) return failed("examining", path_, errno);
    return static_cast<std::uint64_t>(info.st_size);
  }

 private:
  int fd_;
  std::string path_;
};

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Status sync_directory(const std::string& path) {
  const std::string directory = directory_of(path);
  const int fd = retry_interrupted(
      [&] { return ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (fd < 0) return failed("opening the directory", directory, errno);
  const int rc = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  if (rc < 0 && error != EINVAL) return failed("syncing the directory", directory, error);
  return {};
}

}  // namespace

Result<std::unique_ptr<File>> RealFiles::open(const std::string& path, OpenMode mode) {
  const int access = mode == OpenMode::read ? O_RDONLY : O_RDWR;
  int fd = retry_interrupted([&] { return ::open(path.c_str(), access | O_CLOEXEC); });
  if (fd < 0 && errno == ENOENT && mode == OpenMode::create) {
    fd =
        retry_interrupted([&] { return ::open(path.c_str(), access | O_CREAT | O_CLOEXEC, 0600); });
    if (fd < 0) return failed("creating", path, errno);
    if (auto synced = sync_directory(path); !synced) {
      ::close(fd);
      return fail(std::move(synced).error());
    }
  }
  if (fd < 0) return failed("opening", path, errno);
  struct stat info{};
  if (::fstat(fd, &info) < 0 || S_ISDIR(info.st_mode)) {
    ::close(fd);
    return failed("opening", path, EISDIR);
  }
  return std::make_unique<RealFile>(fd, path);
}

Result<bool> RealFiles::exists(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  return failed("looking for", path, errno);
}

Status RealFiles::remove(const std::string& path, bool durable) {
  if (::unlink(path.c_str()) < 0) return failed("removing", path, errno);
  if (durable) return sync_directory(path);
  return {};
}

Status RealFiles::rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) < 0)
    return failed("renaming to " + to + " the file", from, errno);
  return sync_directory(to);
}

}  // namespace sluice
