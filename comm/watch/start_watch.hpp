// StartWatch: ends this process where MPI_Init does not return. A rank that died before or inside it, or was never
// started, leaves the others inside it for ever, and the ranks know nothing of each other yet but what Linux says of
// this host's processes.
// Owns a thread from construction to destruction; World has one around MPI_Init, on the main thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <sys/types.h>

#include "comm/place/launch_env.hpp"

namespace dtrain::comm {

/// A process that the launcher has started as a rank of this run, on this host.
struct StartedRank {
  int rank = 0, local_rank = 0;
  pid_t pid = 0;
  std::string program = {};   // "dtrain", "sleep"
  bool same_program = false;  // as this process's; else a wrapper, say, that has not started it yet
  bool stopped = false;
};
/// By local rank; of a rank's several processes the one that runs this program. Empty where the launcher's marks are
/// not known.
std::vector<StartedRank> ranks_started_here();

/// The process of Open MPI's that started this rank, past wrappers: mpirun, or its daemon on another host; 0 where
/// another launcher did.
pid_t launcher_of_this_rank();

class StartWatch {
 public:
  static constexpr double default_limit_seconds = 600;
  static constexpr const char* setting = "DTRAIN_START_TIMEOUT_SECONDS";
  /// Of the environment, as there is no configuration yet; 0: no limit. Throws ConfigError.
  static double limit_seconds(const Environment&);

  struct Options {
    double limit_seconds = default_limit_seconds;  // of MPI_Init; 0 or less: never
    double look_seconds = 1;                       // between two looks at this host's ranks
    double settle_seconds = 3;                     // the launcher's time to end the run where a rank died
    std::function<std::vector<StartedRank>()> look = ranks_started_here;
    /// By default prints "error: <message>", if there is one, and leaves by _exit(5). On the watch's thread, once.
    std::function<void(const std::string& message)> on_end = {};
  };

  StartWatch(const LaunchEnvironment&, std::string host, Options);
  /// MPI_Init has returned.
  ~StartWatch();
  StartWatch(const StartWatch&) = delete;
  StartWatch& operator=(const StartWatch&) = delete;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dtrain::comm
