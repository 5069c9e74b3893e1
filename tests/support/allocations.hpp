// Counts calls of operator new in this test binary, from all threads.
// Linking allocations.cpp replaces the global operators; the counter is one atomic.
#pragma once

#include <cstdint>

namespace dtrain::test {

/// Allocations since the start of the process.
std::uint64_t allocation_count() noexcept;
/// Those of the calling thread.
std::uint64_t thread_allocation_count() noexcept;

}  // namespace dtrain::test
