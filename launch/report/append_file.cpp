#include "launch/report/append_file.hpp"

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace {

int open_to_append(const std::string& path, bool fresh) noexcept {
  // Without O_NONBLOCK a FIFO in the file's place would hang the open.
  return open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC | (fresh ? O_EXCL : 0), 0666);
}

}  // namespace

void require_regular(const std::string& path) {
  std::error_code failed;
  const auto status = std::filesystem::status(path, failed);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    throw DataError(fmt::format("{}: a run writes this file, but this is not a regular file; remove it", path));
}

AppendFile::AppendFile(std::string path, std::string what, bool fresh)
    : path_(std::move(path)), what_(std::move(what)) {
  require_regular(path_);
  fd_ = open_to_append(path_, fresh);
  if (fd_ < 0) throw DataError(fmt::format("{}: cannot write {}: {}", path_, what_, std::strerror(errno)));
}

AppendFile::~AppendFile() {
  if (fd_ >= 0) close(fd_);
}

AppendFile::AppendFile(AppendFile&& o) noexcept
    : path_(std::move(o.path_)),
      what_(std::move(o.what_)),
      fd_(std::exchange(o.fd_, -1)),
      warned_(o.warned_),
      again_(o.again_) {}

bool AppendFile::made_again() noexcept {
  return std::exchange(again_, false);
}

bool AppendFile::write(int fd, std::string_view text) const noexcept {
  while (!text.empty()) {
    const auto n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

void AppendFile::append(std::string_view record) {
  struct stat now {};
  bool known = fstat(fd_, &now) == 0;
  if (known && now.st_nlink == 0) {
    make_again();
    known = fstat(fd_, &now) == 0;
  }
  if (write(fd_, record)) return;
  warn(errno);
  // A disk may be full for a moment: what comes later must not follow half a record.
  if (known && ftruncate(fd_, now.st_size) != 0) warn(errno);
}

/// The old file is there as long as this process holds it.
void AppendFile::make_again() {
  std::error_code failed;
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), failed);
  const int fd = failed ? -1 : open_to_append(path_, true);
  if (fd < 0) return warn(failed ? failed.value() : errno);
  char piece[1 << 16];
  off_t at = 0;
  for (ssize_t n = 0; (n = pread(fd_, piece, sizeof piece, at)) > 0; at += n)
    if (!write(fd, {piece, static_cast<std::size_t>(n)})) break;
  close(std::exchange(fd_, fd));
  again_ = true;
}

void AppendFile::warn(int error) {
  if (std::exchange(warned_, true)) return;
  (void)std::fprintf(stderr, "warning: %s: cannot write %s: %s; training goes on\n", path_.c_str(), what_.c_str(),
                     std::strerror(error));
}

}  // namespace dtrain::launch
