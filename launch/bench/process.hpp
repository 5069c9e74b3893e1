// A child process and what it prints: how the scaling benchmark starts mpirun.
// One call, on the caller's thread; the child is gone when it returns.
#pragma once

#include <string>
#include <vector>

namespace dtrain::launch {

struct ProcessResult {
  int code = 0;  // of the exit; 128 + the signal
  std::string out, err;
};

/// Runs a program of PATH in this environment without what a launcher told this process of itself, so that it may start
/// MPI processes of its own. Throws ConfigError where it cannot be started.
ProcessResult run_process(const std::vector<std::string>& command);

}  // namespace dtrain::launch
