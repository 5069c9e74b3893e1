// The cpus of this process as the kernel sees them: read from /sys and the affinity mask, and set.
// Free functions for the main thread, bind_to() before any other thread exists; threads made later inherit the mask.
#pragma once

#include "comm/place/launch_env.hpp"

namespace dtrain::comm {

/// Cores of the current affinity mask.
Cores allowed_cores();
/// Cores that the cpuset permits, whatever the mask is now. Leaves the mask as it was.
Cores available_cores();
/// False where the kernel refuses.
bool bind_to(const Cores&) noexcept;
/// The same for all threads that this process has; false where the kernel refuses for the caller's.
bool bind_all_threads_to(const Cores&);
int count_cpus(const Cores&) noexcept;

}  // namespace dtrain::comm
