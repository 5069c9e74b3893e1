// `dtrain --ranks N config.yaml`: this program starts mpirun with N ranks of itself on this machine, and waits for it.
// Free functions for the main thread, before any other thread exists. mpirun is a child in a process group of its own:
// a signal reaches this process alone, which asks the ranks to save, where mpirun itself would kill them a second
// later.
#pragma once

#include <string>
#include <vector>

#include "runtime/tensor/error.hpp"

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

/// The exit code of a run, of mpirun's wait status. `asked`: its ranks were asked to save and stop; where they were not
/// ready to answer yet, and died of the request, nothing is lost. `told`: what rank 0 has told, or -1: mpirun itself
/// returns 1 where a signal has reached it, too, though all is saved.
int code_of_run(int wait_status, bool asked, int told);

/// Of rank 0, when it knows its exit code, for the process that has started the ranks, if that was start_ranks().
void tell_starter(ExitCode) noexcept;

/// Returns the ranks' exit code, as mpirun tells it. `saves`: they save and stop at SIGUSR1; others are ended by a
/// signal. Throws ConfigError where this process is a rank of some launch, where there is no mpirun, or where it cannot
/// be started.
int start_ranks(int ranks, const std::vector<std::string>& arguments, bool saves);

}  // namespace dtrain::launch
