// Staged: the Collective of device tensors over a Communicator of host memory. A tensor goes through pinned memory in
// pieces: while one is exchanged, the next is copied out and the one before it is copied in.
// Owns a thread that makes the blocking calls, the pinned memory and the timelines by which thread and streams wait for
// each other: all copies are enqueued at once by the caller, so that the host never waits and no thread of a driver is
// held up. The Device outlives it. Streams may change between calls.
#pragma once

#include <cstddef>
#include <memory>

#include "comm/collective/communicator.hpp"
#include "runtime/device/device.hpp"

namespace dtrain::comm {

struct StagedOptions {
  std::size_t piece_bytes = std::size_t{1} << 20;
  int pieces = 4;  // under way at once
};

/// Throws OutOfMemory. Errors of the exchange are thrown by later calls and by check(); streams go on then, with
/// memory that is worth nothing.
std::unique_ptr<Collective> make_staged_collective(Device&, std::unique_ptr<Communicator>, StagedOptions = {});

}  // namespace dtrain::comm
