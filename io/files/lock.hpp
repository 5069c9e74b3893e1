// The lock of a checkpoint directory: one writer, and a second one is told who that is.
// Held by rank 0 as an open descriptor; the kernel drops it when the process ends in whatever way.
#pragma once

#include <string>

#include "io/files/file.hpp"

namespace dtrain::io {

class DirectoryLock {
 public:
  DirectoryLock() = default;
  /// Locks DIRECTORY/LOCK and writes host, pid and run id into it. Throws CheckpointError naming the holder where
  /// another process still has it after `grace_seconds` (a killed job needs a moment to be gone). A holder on this host
  /// that was killed while it wrote is waited for, up to a minute.
  DirectoryLock(FileSystem&, const std::string& directory, const std::string& run_id, double grace_seconds = 1.0);
  bool held() const noexcept { return static_cast<bool>(file_); }

 private:
  File file_;
};

}  // namespace dtrain::io
