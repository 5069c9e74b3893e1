// The Collective of CUDA streams: NCCL on the stream's native handle, so that the host never blocks and calls can be
// recorded. Sums only: gradients are divided by the step's weight where the update reads them, so that NCCL's average
// would save no pass, and would be wrong where ranks have uneven work.
// The Collective owns its ncclComm_t and a thread that looks for errors of other ranks or the network, and ends the
// communicator then, so that streams come free; built where CUDA and NCCL are found, else a stub that says so
// (nccl_off.cpp).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "comm/collective/config.hpp"
#include "comm/nccl/device_fixed_order.hpp"
#include "runtime/device/device.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::comm {

bool nccl_available() noexcept;
/// Of the library that is loaded; empty where the build has none.
std::string nccl_version();

/// Called on a thread of the collective with what went wrong where the training thread does not come to hear of it.
using LastResort = std::function<void(const std::string&)>;

/// A collective call over `group`, which carries the unique id. All connections are made before it returns. Throws
/// CommError, also where that takes longer than config.set_up_timeout_seconds, say because a rank is gone; DeviceError
/// in a build without NCCL.
std::unique_ptr<DeviceExchange> make_nccl_collective(Group& group, Device&, const CommConfig&, LastResort = nullptr);

}  // namespace dtrain::comm
