// The operating system's file calls behind one seam, so that tests can inject any fault at any call.
// A FileSystem has no state that callers share and may be used from several threads; File owns one descriptor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {

struct FileStatus {
  bool exists = false;
  bool regular = false;
  bool directory = false;
  std::uint64_t bytes = 0;
  std::uint64_t inode = 0;
};

/// One method a system call. Every method returns a negative errno on failure, as the kernel does; callers that want
/// exceptions use File and the functions below.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  /// A descriptor >= 0. Flags as of open(2); O_CLOEXEC is always added.
  virtual int open(const std::string& path, int flags, unsigned mode) = 0;
  /// Bytes written (may be fewer than asked for) or read (0 at the end).
  virtual std::int64_t write(int fd, const void* data, std::size_t bytes) = 0;
  virtual std::int64_t read(int fd, void* data, std::size_t bytes) = 0;
  /// Reserves the blocks of [0, bytes). 0 where the file system has no such operation: the writes will tell.
  virtual int allocate(int fd, std::uint64_t bytes) = 0;
  /// Asks the kernel to start writing [offset, offset + bytes) back; a hint, its failure means nothing.
  virtual void start_writeback(int fd, std::uint64_t offset, std::uint64_t bytes) = 0;
  virtual int truncate(int fd, std::uint64_t bytes) = 0;
  virtual int sync(int fd) = 0;
  virtual int close(int fd) = 0;
  virtual int rename(const std::string& from, const std::string& to) = 0;
  virtual int make_directory(const std::string& path) = 0;
  virtual int remove_file(const std::string& path) = 0;
  virtual int remove_directory(const std::string& path) = 0;
  /// Names in a directory, sorted, without "." and "..".
  virtual int list(const std::string& path, std::vector<std::string>& names) = 0;
  /// Does not follow a final link. A path that does not exist is no failure: `exists` is false.
  virtual int status(const std::string& path, FileStatus& out) = 0;
  /// Takes an exclusive lock that the kernel drops when the process ends; -EWOULDBLOCK where another holds it.
  virtual int try_lock(int fd) = 0;
};

/// The real one; has no state.
FileSystem& posix_file_system() noexcept;

/// Owns a descriptor. Errors are CheckpointErrors that name the path, the operation, the bytes and the system's reason.
class File {
 public:
  File() = default;
  File(FileSystem&, std::string path, int flags, unsigned mode = 0666);
  File(File&&) noexcept;
  File& operator=(File&&) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  /// Closes and ignores failure; after writing call close().
  ~File();

  const std::string& path() const noexcept { return path_; }
  int descriptor() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  void allocate(std::uint64_t bytes);
  /// Writes all, however many calls it takes.
  void write(std::span<const std::byte>);
  void start_writeback(std::uint64_t offset, std::uint64_t bytes);
  /// Reads until `into` is full or the file ends; bytes read.
  std::size_t read(std::span<std::byte> into);
  void truncate(std::uint64_t bytes);
  void sync();
  void close();

 private:
  FileSystem* files_ = nullptr;
  std::string path_;
  int fd_ = -1;
  std::uint64_t written_ = 0;
};

/// "cannot write runs/a/LOCK (12 of 40 bytes): No space left on device"
[[noreturn]] void throw_file_error(const std::string& operation, const std::string& path, int error,
                                   const std::string& detail = {});

FileStatus look_at(FileSystem&, const std::string& path);
/// Names in a directory, sorted.
std::vector<std::string> list_names(FileSystem&, const std::string& directory);
void rename(FileSystem&, const std::string& from, const std::string& to);
void sync_directory(FileSystem&, const std::string& path);
/// With parents; existing ones are fine.
void make_directories(FileSystem&, const std::string& path);
/// Removes a file, a link or a directory with all it holds; a missing path is fine. Never follows links.
void remove_tree(FileSystem&, const std::string& path);
/// The whole file. Throws where it is longer than `cap` bytes.
std::string read_text(FileSystem&, const std::string& path, std::uint64_t cap);
/// Writes and fsyncs; does not sync the directory.
void write_text(FileSystem&, const std::string& path, const std::string& text);
std::string join_path(const std::string& directory, const std::string& name);
/// What stands behind the last slash but those at the end.
std::string last_name(std::string path);

}  // namespace dtrain::io
