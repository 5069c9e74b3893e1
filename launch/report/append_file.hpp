// AppendFile: a file of records (lines, events) that holds whole records only, whatever becomes of the disk and of its
// folder. Owns the descriptor; used by one thread. A record is written at once and is seen by readers from then on.
#pragma once

#include <string>
#include <string_view>

namespace dtrain::launch {

/// Throws DataError where the name is there and is no regular file: a FIFO would hang the run, a device fill the
/// memory.
void require_regular(const std::string& path);

class AppendFile {
 public:
  /// `what` it holds, for warnings: "metrics". `fresh`: a file of this name must not be there. Throws DataError.
  AppendFile(std::string path, std::string what, bool fresh = false);
  ~AppendFile();
  AppendFile(AppendFile&&) noexcept;
  AppendFile& operator=(AppendFile&&) = delete;

  /// A record that cannot be written is lost, which is said once; nothing of it stays in the file.
  void append(std::string_view record);
  /// True once after the file and its folder were removed, and are made again with all that they had.
  bool made_again() noexcept;

 private:
  bool write(int fd, std::string_view) const noexcept;
  void make_again();
  void warn(int error);

  std::string path_, what_;
  int fd_ = -1;
  bool warned_ = false, again_ = false;
};

}  // namespace dtrain::launch
