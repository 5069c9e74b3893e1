// What a device can do at best, measured through its own interface: matrix products and copies.
// Free functions on the caller's thread; they allocate and free what they measure with.
#pragma once

#include "runtime/device/device.hpp"
#include "runtime/tensor/dtype.hpp"

namespace dtrain {

/// FLOP/s of the quickest square matrix product (a linear layer without bias) of some sizes, multiply and add counted
/// as two. `seconds`: how long to try. 0 where the device has no linear layer of this dtype.
double measure_matrix_rate(Device&, DType, double seconds);
/// Bytes/s read and written together by the quickest copy of 32 MiB.
double measure_memory_rate(Device&, double seconds);

}  // namespace dtrain
