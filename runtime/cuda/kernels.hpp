// What own kernels of the CUDA device are given beside pointers: element types, and how values are seen. Pointers are
// device memory that the caller owns until the stream was there; images lie channels last.
#pragma once

#include <cstdint>

#include "runtime/cuda/grid.hpp"
#include "runtime/device/step_state.hpp"
#include "runtime/ops/activation.hpp"

namespace dtrain::cuda {

enum class Element : std::uint8_t { f32, bf16, f16 };
enum class Put : std::uint8_t { none, overwrite, add };
/// A gradient's place, and how it is written.
struct Slot {
  void* to = nullptr;
  Put put = Put::none;
};
/// [samples, pixels, channels]
struct Images {
  std::int64_t samples, pixels, channels;
};
/// [rows, channels]
struct Matrix {
  std::int64_t rows, channels;
};

}  // namespace dtrain::cuda
