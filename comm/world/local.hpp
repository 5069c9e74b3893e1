// Ranks as threads of one process: groups, communicators and collectives over shared memory, for tests.
// run_local owns the threads and everything shared; a failure or a missed deadline on one rank ends all.
#pragma once

#include <functional>
#include <memory>

#include "comm/collective/communicator.hpp"
#include "comm/collective/config.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::comm {

class LocalWorld;

/// What one rank's thread is given. The make_* calls are collective, in the same order on every rank; each result has a
/// channel of its own.
class LocalRank {
 public:
  LocalRank(LocalWorld& world, int rank) : world_(world), rank_(rank) {}
  int rank() const noexcept { return rank_; }
  int size() const noexcept;
  std::unique_ptr<Group> make_group();
  std::unique_ptr<Communicator> make_communicator(Algorithm = Algorithm::automatic);
  std::unique_ptr<Collective> make_collective(Algorithm = Algorithm::automatic);
  /// What suits the device; see device_collective.hpp.
  std::unique_ptr<Collective> make_collective(Device&, const CommConfig&);

 private:
  LocalWorld& world_;
  int rank_;
  int made_ = 0;
};

/// Runs `work` on `ranks` threads and joins them. Where some throw, the others' waits throw CommError, and the first
/// failure is rethrown here. A wait that lasts longer than `timeout_seconds` is a CommError.
void run_local(int ranks, const std::function<void(LocalRank&)>& work, double timeout_seconds = 60);

}  // namespace dtrain::comm
