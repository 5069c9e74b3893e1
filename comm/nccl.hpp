// The Collective of CUDA streams: NCCL on the stream's native handle, so the host never blocks.
// The Collective owns its ncclComm_t; built where CUDA and NCCL are found, else a stub that says so (nccl_off.cpp).
#pragma once

#include <memory>
#include <string>

#include "runtime/group.hpp"

namespace dtrain::comm {

bool nccl_available() noexcept;
/// Of the library that is loaded; empty where the build has none.
std::string nccl_version();

/// A collective call over `group`, which carries the unique id. `ordinal`: this rank's GPU. Throws CommError;
/// DeviceError in a build without NCCL.
std::unique_ptr<Collective> make_nccl_collective(Group& group, int ordinal);

}  // namespace dtrain::comm
