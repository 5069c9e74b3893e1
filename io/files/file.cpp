#include "io/files/file.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace dtrain::io {
namespace {

int result_of(int r) noexcept {
  return r < 0 ? -errno : r;
}

class PosixFileSystem final : public FileSystem {
 public:
  int open(const std::string& path, int flags, unsigned mode) override {
    int r = 0;
    do r = ::open(path.c_str(), flags | O_CLOEXEC, mode);
    while (r < 0 && errno == EINTR);
    return result_of(r);
  }
  std::int64_t write(int fd, const void* data, std::size_t bytes) override {
    const auto r = ::write(fd, data, bytes);
    return r < 0 ? -errno : r;
  }
  std::int64_t read(int fd, void* data, std::size_t bytes) override {
    const auto r = ::read(fd, data, bytes);
    return r < 0 ? -errno : r;
  }
  int allocate(int fd, std::uint64_t bytes) override {
    // fallocate and not posix_fallocate: where a file system cannot, glibc would write to every block instead.
    const int r = result_of(::fallocate(fd, 0, 0, static_cast<off_t>(bytes)));
    return r == -EOPNOTSUPP || r == -ENOSYS ? 0 : r;
  }
  void start_writeback(int fd, std::uint64_t offset, std::uint64_t bytes) override {
    ::sync_file_range(fd, static_cast<off_t>(offset), static_cast<off_t>(bytes), SYNC_FILE_RANGE_WRITE);
  }
  int truncate(int fd, std::uint64_t bytes) override { return result_of(::ftruncate(fd, static_cast<off_t>(bytes))); }
  int sync(int fd) override { return result_of(::fsync(fd)); }
  int close(int fd) override { return result_of(::close(fd)); }
  int rename(const std::string& from, const std::string& to) override {
    return result_of(::rename(from.c_str(), to.c_str()));
  }
  int make_directory(const std::string& path) override { return result_of(::mkdir(path.c_str(), 0777)); }
  int remove_file(const std::string& path) override { return result_of(::unlink(path.c_str())); }
  int remove_directory(const std::string& path) override { return result_of(::rmdir(path.c_str())); }
  int list(const std::string& path, std::vector<std::string>& names) override {
    names.clear();
    DIR* directory = ::opendir(path.c_str());
    if (!directory) return -errno;
    errno = 0;
    while (const dirent* entry = ::readdir(directory)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
    }
    const int error = errno;
    ::closedir(directory);
    std::sort(names.begin(), names.end());
    return -error;
  }
  int status(const std::string& path, FileStatus& out) override {
    out = {};
    struct stat s {};
    if (::lstat(path.c_str(), &s) < 0) return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
    out.exists = true;
    out.regular = S_ISREG(s.st_mode);
    out.directory = S_ISDIR(s.st_mode);
    out.bytes = static_cast<std::uint64_t>(s.st_size);
    out.inode = s.st_ino;
    return 0;
  }
  int try_lock(int fd) override {
    int r = 0;
    do r = ::flock(fd, LOCK_EX | LOCK_NB);
    while (r < 0 && errno == EINTR);
    return result_of(r);
  }
};

}  // namespace

FileSystem& posix_file_system() noexcept {
  static PosixFileSystem files;
  return files;
}

void throw_file_error(const std::string& operation, const std::string& path, int error, const std::string& detail) {
  throw CheckpointError(fmt::format("cannot {} {}{}: {}", operation, path, detail.empty() ? "" : " (" + detail + ")",
                                    std::strerror(std::abs(error))));
}

File::File(FileSystem& files, std::string path, int flags, unsigned mode) : files_(&files), path_(std::move(path)) {
  const int fd = files.open(path_, flags, mode);
  if (fd < 0) throw_file_error((flags & O_CREAT) != 0 ? "create" : "open", path_, fd);
  fd_ = fd;
}

File::File(File&& o) noexcept
    : files_(o.files_), path_(std::move(o.path_)), fd_(std::exchange(o.fd_, -1)), written_(o.written_) {}

File& File::operator=(File&& o) noexcept {
  std::swap(files_, o.files_);
  std::swap(path_, o.path_);
  std::swap(fd_, o.fd_);
  std::swap(written_, o.written_);
  return *this;
}

File::~File() {
  if (fd_ >= 0) files_->close(fd_);
}

void File::allocate(std::uint64_t bytes) {
  int r = 0;
  do r = files_->allocate(fd_, bytes);
  while (r == -EINTR);
  if (r < 0) throw_file_error("reserve space for", path_, r, fmt::format("{} bytes", bytes));
}

void File::write(std::span<const std::byte> data) {
  std::size_t done = 0;
  while (done < data.size()) {
    const auto r = files_->write(fd_, data.data() + done, data.size() - done);
    if (r == -EINTR) continue;
    // A regular file that takes nothing will never take more.
    if (r <= 0) {
      throw_file_error("write", path_, r == 0 ? EIO : static_cast<int>(-r),
                       fmt::format("{} bytes at offset {}", data.size() - done, written_));
    }
    done += static_cast<std::size_t>(r);
    written_ += static_cast<std::uint64_t>(r);
  }
}

void File::start_writeback(std::uint64_t offset, std::uint64_t bytes) {
  files_->start_writeback(fd_, offset, bytes);
}

std::size_t File::read(std::span<std::byte> into) {
  std::size_t done = 0;
  while (done < into.size()) {
    const auto r = files_->read(fd_, into.data() + done, into.size() - done);
    if (r == -EINTR) continue;
    if (r < 0) throw_file_error("read", path_, static_cast<int>(-r), fmt::format("{} bytes", into.size() - done));
    if (r == 0) break;
    done += static_cast<std::size_t>(r);
  }
  return done;
}

void File::truncate(std::uint64_t bytes) {
  if (const int r = files_->truncate(fd_, bytes); r < 0) {
    throw_file_error("truncate", path_, r, fmt::format("to {} bytes", bytes));
  }
}

void File::sync() {
  if (const int r = files_->sync(fd_); r < 0) throw_file_error("fsync", path_, r, fmt::format("{} bytes", written_));
}

void File::close() {
  // The descriptor is gone whatever close says (Linux), so it is never tried again.
  if (const int r = files_->close(std::exchange(fd_, -1)); r < 0 && r != -EINTR) {
    throw_file_error("close", path_, r, fmt::format("{} bytes", written_));
  }
}

FileStatus look_at(FileSystem& files, const std::string& path) {
  FileStatus status;
  if (const int r = files.status(path, status); r < 0) throw_file_error("look at", path, r);
  return status;
}

std::vector<std::string> list_names(FileSystem& files, const std::string& directory) {
  std::vector<std::string> names;
  if (const int r = files.list(directory, names); r < 0) throw_file_error("list", directory, r);
  return names;
}

void rename(FileSystem& files, const std::string& from, const std::string& to) {
  if (const int r = files.rename(from, to); r < 0) throw_file_error("rename", from, r, "to " + to);
}

void sync_directory(FileSystem& files, const std::string& path) {
  File directory(files, path, O_RDONLY | O_DIRECTORY);
  directory.sync();
  directory.close();
}

void make_directories(FileSystem& files, const std::string& path) {
  if (path.empty()) return;
  const int r = files.make_directory(path);
  if (r == 0 || r == -EEXIST) {
    FileStatus status;
    if (r == -EEXIST && path.back() != '/' && files.status(path, status) == 0 && status.regular) {
      throw_file_error("create directory", path, ENOTDIR, "a file is in its place");
    }
    return;
  }
  const auto slash = path.find_last_of('/');
  if (r != -ENOENT || slash == std::string::npos || slash == 0) throw_file_error("create directory", path, r);
  make_directories(files, path.substr(0, slash));
  if (const int again = files.make_directory(path); again < 0 && again != -EEXIST) {
    throw_file_error("create directory", path, again);
  }
}

void remove_tree(FileSystem& files, const std::string& path) {
  const FileStatus status = look_at(files, path);
  if (!status.exists) return;
  if (!status.directory) {
    if (const int r = files.remove_file(path); r < 0 && r != -ENOENT) throw_file_error("remove", path, r);
    return;
  }
  for (const auto& name : list_names(files, path)) remove_tree(files, join_path(path, name));
  if (const int r = files.remove_directory(path); r < 0 && r != -ENOENT) throw_file_error("remove", path, r);
}

std::string read_text(FileSystem& files, const std::string& path, std::uint64_t cap) {
  // Without O_NONBLOCK a FIFO in the file's place would hang the open.
  File file(files, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  std::string text;
  constexpr std::size_t piece = 1 << 16;
  for (;;) {
    const std::size_t old = text.size();
    text.resize(old + piece);
    const auto n = file.read(std::as_writable_bytes(std::span(text.data() + old, piece)));
    text.resize(old + n);
    if (text.size() > cap) throw CheckpointError(fmt::format("{} is longer than {} bytes", path, cap));
    if (n < piece) return text;
  }
}

void write_text(FileSystem& files, const std::string& path, const std::string& text) {
  File file(files, path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW);
  file.write(std::as_bytes(std::span(text)));
  file.sync();
  file.close();
}

std::string join_path(const std::string& directory, const std::string& name) {
  if (directory.empty()) return name;
  return directory.back() == '/' ? directory + name : directory + "/" + name;
}

std::string last_name(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.find_last_of('/') + 1);
}

}  // namespace dtrain::io
