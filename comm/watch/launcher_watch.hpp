// LauncherWatch: a process that a rank leaves behind if it dies inside MPI_Init, to end a launcher that has no rank
// left and does not end by itself. The PMIx of Open MPI 4 has freed what it waits for where a rank dies while it
// connects, so that mpirun waits for ever at its end, also after SIGTERM; and no rank is left that could do something
// about it. The process belongs to nobody: it ends with the launcher, or when this object, on the main thread, says
// that MPI has started.
#pragma once

#include <sys/types.h>

namespace dtrain::comm {

class LauncherWatch {
 public:
  static constexpr const char* process_name = "dtrain-watch";

  /// `launcher`: 0: nothing is watched. `patience_seconds`: from the end of its last child on.
  explicit LauncherWatch(pid_t launcher, double patience_seconds = 4);
  /// MPI has started.
  ~LauncherWatch();
  LauncherWatch(const LauncherWatch&) = delete;
  LauncherWatch& operator=(const LauncherWatch&) = delete;

 private:
  int line_ = -1;  // to the process, which reads its end where this one dies
};

}  // namespace dtrain::comm
