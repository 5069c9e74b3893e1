// A Timeline of the CUDA device: a number in pinned memory that the GPU's streams write and wait for by themselves, so
// that no thread of the driver is held up by a host function that waits.
// Owns the memory; what it needs of the driver is looked up once, by name.
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/device/device.hpp"

namespace dtrain::cuda {

/// Throws DeviceError where the driver's streams cannot wait for memory.
std::unique_ptr<Timeline> make_cuda_timeline();
/// Stream::reach and Stream::await of a CUDA stream.
void reach_on(void* stream, Timeline&, std::uint64_t value);
void await_on(void* stream, Timeline&, std::uint64_t value);

}  // namespace dtrain::cuda
