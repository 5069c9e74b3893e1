// NCCL without GPUs: ranks are threads of this process, streams are AsyncDevice's, and each call runs on the stream's
// thread as soon as all ranks have come to it, as a kernel of NCCL does. comm/nccl/nccl.cpp itself is compiled against
// it. One simulation a process, which owns all communicators; a test sets what goes wrong before it makes ranks, and
// reset() afterwards.
#pragma once

#include <atomic>

namespace dtrain::test {

struct SimulatedNccl {
  /// Communicators stay in progress, as where a rank does not come.
  std::atomic<bool> never_starts{false};
  /// So many looks at a communicator say "in progress" after each call, and only then is the call enqueued.
  std::atomic<int> late_by{0};
  /// The call with this number (from 1; of each rank, those of the start included) is refused at once. 0: none.
  std::atomic<int> refused_call{0};
  /// This rank's communicators are dead: its calls do nothing, and nobody else's come to an end. -1: none.
  std::atomic<int> dead_rank{-1};
  /// What the living see of that: an error that arrives by itself.
  std::atomic<bool> noticed{false};
  /// ncclCommAbort never comes back.
  std::atomic<bool> abort_hangs{false};

  std::atomic<int> calls{0}, aborted{0}, destroyed{0}, registered{0}, allocated{0};

  void reset();
};
SimulatedNccl& simulated_nccl();

}  // namespace dtrain::test
