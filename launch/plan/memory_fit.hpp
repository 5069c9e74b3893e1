// What a run needs of its device's memory, and which micro batch would fit where it is too much.
// Pure functions of configuration and plan; for any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "launch/config/config.hpp"
#include "runtime/plan/plan.hpp"

namespace dtrain::launch {

/// Bytes of one of `ranks` ranks by kind, with what the configuration adds to the plan: averages, trees over micro
/// batches. Workspaces are what the plan knows of them.
MemoryUse run_memory(const RunConfig&, const Plan&, int ranks, std::int64_t accumulation);

/// The largest micro batch below `micro` that a rank's part of each step's batch is a multiple of and with which the
/// run needs no more than `bytes`; 0 where there is none.
std::int64_t largest_micro_batch(const RunConfig&, int ranks, std::int64_t micro, std::size_t bytes);

/// What is to be said to a run with that micro batch that did not get its memory although so many bytes were free.
std::string memory_advice(const RunConfig&, int ranks, std::int64_t micro, std::size_t bytes);

}  // namespace dtrain::launch
