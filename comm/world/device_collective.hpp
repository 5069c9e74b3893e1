// Which Collective suits a device: the host's for a cpu; NCCL's for GPUs, or the staged one where that is asked for or
// NCCL is not in the build.
// A function that owns nothing; what makes groups and communicators is handed in, so that MPI ranks and local threads
// choose alike.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "comm/collective/communicator.hpp"
#include "comm/collective/config.hpp"
#include "comm/nccl/nccl.hpp"
#include "runtime/device/device.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::comm {

struct CollectiveMaker {
  int size = 1;
  std::string host{};
  std::function<std::unique_ptr<Group>()> group{};
  std::function<std::unique_ptr<Communicator>(Algorithm)> communicator{};
  LastResort last_resort{};
};

/// A collective call: all ranks agree first on the kind of device and on what carries the sums; where they differ, or
/// the start fails, it throws CommError. `note` is filled where the user should know of the choice. The Device outlives
/// the result.
std::unique_ptr<Collective> make_device_collective(const CollectiveMaker&, Device&, const CommConfig&,
                                                   std::string& note);

}  // namespace dtrain::comm
