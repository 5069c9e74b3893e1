// World: all ranks of the run. Owns MPI from init to finalize and hands out groups and collectives, each on a
// duplicated communicator. One World a process, started and ended on the main thread; what it hands out must be
// destroyed before it. A single process without a launcher starts without MPI.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/collective/communicator.hpp"
#include "comm/collective/config.hpp"
#include "comm/place/launch_env.hpp"
#include "runtime/ranks/group.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

class LocalRank;
class Watchdog;

class World {
 public:
  /// Reads the launch environment, widens mpirun's one-core default binding, and starts MPI with threads. `command`:
  /// what this process does with it, which must be the same on all ranks. Throws CommError.
  explicit World(const std::string& command = {});
  /// The same for a rank that is a thread of this process (local.hpp), for tests: without MPI and without the others'
  /// watchdogs.
  explicit World(LocalRank&);
  /// Ends MPI as finish() does, where finish() or abort() were not called.
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int rank() const noexcept;
  int size() const noexcept;
  int local_rank() const noexcept;  // among the ranks of this host
  int local_size() const noexcept;
  const std::string& host() const noexcept;
  /// By rank.
  const std::vector<std::string>& hosts() const noexcept;
  int host_count() const;  // different ones
  /// Cpus this process may use, after re-binding.
  int cpus() const noexcept;
  const LaunchEnvironment& launch() const noexcept;
  /// Those that a rank of a GPU run may choose from: free_cores() of launch_env.hpp.
  const Cores& free_cores() const noexcept;
  /// Binds every thread of this process, and those it starts later, to these cores. False where the kernel refuses.
  bool use_cores(const Cores&);
  /// What the user should be told once (rank 0): "mpirun bound each rank to one core; re-bound to 4 of 8". May be
  /// empty.
  const std::vector<std::string>& notes() const noexcept;

  /// Watches the ranks of this host from start to end; without a deadline until it is given one.
  Watchdog& watchdog() noexcept;

  // Collective calls: every rank makes the same ones in the same order.
  std::unique_ptr<Group> make_group();
  std::unique_ptr<Communicator> make_communicator(Algorithm = Algorithm::automatic);
  /// MPI's own calls, whatever the network: what a benchmark compares with.
  std::unique_ptr<Communicator> make_plain_communicator();
  /// For cpu streams.
  std::unique_ptr<Collective> make_collective(Algorithm = Algorithm::automatic);
  /// What suits the device; see device_collective.hpp, also for what it throws. May add a note.
  std::unique_ptr<Collective> make_collective(Device&, const CommConfig&);

  /// The orderly end, also of errors that all ranks agree on: whoever prints has printed; a barrier (at most
  /// `limit_seconds`), so that mpirun kills nobody who still prints; then MPI ends. Returns the code for main to
  /// return.
  int finish(ExitCode, double limit_seconds = 5) noexcept;
  /// True for the first rank of this host that asks: it says what all would say. From any thread.
  bool speaks_for_host() noexcept;
  /// An error of one rank alone, which has printed it: flushes, ends all ranks at once. The exit code is mpirun's, too.
  /// From any thread, also while finish() waits.
  [[noreturn]] void abort(ExitCode) noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dtrain::comm
