// `dtrain --ranks N config.yaml`: this program starts mpirun with N ranks of itself on this machine.
// Free functions for the main thread, before any other thread exists: the process becomes mpirun, so that signals and
// exit codes are mpirun's own.
#pragma once

#include <string>
#include <vector>

namespace dtrain::launch {

/// What mpirun must know of this machine and user.
struct RankStart {
  std::string mpirun;   // path
  std::string program;  // path
  int ranks = 1;
  bool root = false;  // mpirun asks twice
  int cores = 1;      // of this machine; more ranks need to be allowed
};

/// Ranks are not bound: each binds itself near its GPU, or shares the cores.
std::vector<std::string> mpirun_command(const RankStart&, const std::vector<std::string>& arguments);

/// mpirun's path: that of the bundle this program is part of, the one beside it, or the first in PATH; else empty.
std::string find_mpirun(const std::string& program);

/// The arguments without `--ranks N` and `--ranks=N`.
std::vector<std::string> without_ranks(const std::vector<std::string>& arguments);

/// Does not return. Throws ConfigError where this process is a rank of some launch, where there is no mpirun, or where
/// it cannot be started.
[[noreturn]] void start_ranks(int ranks, const std::vector<std::string>& arguments);

}  // namespace dtrain::launch
