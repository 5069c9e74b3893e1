// The lock of a directory: one run writes there, and a second one is told who that is.
// Held by rank 0 as an open descriptor; the kernel drops it when the process ends in whatever way.
#pragma once

#include <cstdint>
#include <string>

#include "io/files/file.hpp"

namespace dtrain::io {

/// Which directory, in the words of the user.
struct LockedDirectory {
  const char* file = "LOCK";
  const char* what = "checkpoint directory";
  const char* setting = "checkpoint.directory";
};

class DirectoryLock {
 public:
  DirectoryLock() = default;
  /// Locks the file DIRECTORY/LOCK and writes host, pid and run id into it. Throws CheckpointError naming the holder
  /// where another process still has it after `grace_seconds` (a killed job needs a moment to be gone). A holder on
  /// this host that was killed while it wrote is waited for, up to a minute.
  DirectoryLock(FileSystem&, const std::string& directory, const std::string& run_id, LockedDirectory = {},
                double grace_seconds = 1.0);
  bool held() const noexcept { return static_cast<bool>(file_); }
  /// Where the directory, or the file in it, was removed or replaced: makes and locks it again. True where it was.
  /// Throws CheckpointError where that fails.
  bool renew();

 private:
  FileSystem* files_ = nullptr;
  std::string directory_, run_id_;
  LockedDirectory of_;
  File file_;
  std::uint64_t inode_ = 0;
};

}  // namespace dtrain::io
