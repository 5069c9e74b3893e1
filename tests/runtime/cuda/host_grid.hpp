// Runs own kernels of the CUDA device on the host, as run_blocks() of runtime/cuda/host_grid.hpp: each thread of a
// block is a fiber on the calling thread. Stricter than a GPU: a barrier or a shuffle that some threads miss, and a
// thread that returns while others wait, are errors; shared memory starts poisoned.
#pragma once

#include <cstdint>
#include <string>

namespace dtrain::test {

/// In which order the threads of a block and the blocks of a grid have their turn: bits must not depend on it.
enum class Turns : std::uint8_t { forward, backward };
void set_turns(Turns) noexcept;

/// Since the last call: kernels started.
int count_launches() noexcept;

}  // namespace dtrain::test
