// MPI and NCCL as `dtrain doctor` reports them, and how this process was launched.
// Free functions that own nothing; may be called before MPI starts.
#pragma once

#include <string>
#include <vector>

#include "comm/place/launch_env.hpp"
#include "runtime/device/libraries.hpp"

namespace dtrain::comm {

std::vector<Library> comm_libraries();

/// "mpirun", "srun", "mpiexec" or "none".
const char* name_of(Launcher) noexcept;

}  // namespace dtrain::comm
