// Gated channels: what starts their kernels, and their bodies. Structs of arguments; see grid.hpp.
// Pointers are device memory that the caller owns until the stream was there.
#pragma once

#include "runtime/cuda/vector.hpp"
#include "runtime/ops/activation_math.hpp"

namespace dtrain::cuda {

/// `shape`: of the output.
void gated(const Launch&, Element, const Matrix& shape, Activation gate, const void* x, void* y);
void gated_gradient(const Launch&, Element, const Matrix& shape, Activation gate, const void* x, const void* gy,
                    Slot gx);

template <class T, int width>
struct GatedBody {
  std::int64_t half;
  Activation gate;
  const T* x;
  T* y;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Split at = split(i, half / width);
    const T* row = x + at.quotient * 2 * half + at.rest * width;
    Floats<width> a = load_floats<width>(row);
    const Floats<width> b = load_floats<width>(row + half);
    with_activation(gate, [&](auto kind) {
      for (int j = 0; j < width; ++j) a.v[j] = dtrain::activate<kind.value>(a.v[j]) * b.v[j];
    });
    store_floats<width>(y + i * width, a);
  }
};

template <class T, int width>
struct GatedGradientBody {
  std::int64_t half;
  Activation gate;
  const T *x, *gy;
  Slot gx;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Split at = split(i, half / width);
    const std::int64_t first = at.quotient * 2 * half + at.rest * width;
    Floats<width> a = load_floats<width>(x + first), b = load_floats<width>(x + first + half);
    const Floats<width> g = load_floats<width>(gy + i * width);
    with_activation(gate, [&](auto kind) {
      for (int j = 0; j < width; ++j) {
        const float y = dtrain::activate<kind.value>(a.v[j]);
        const float seen = derivative_of_output_v<kind.value> ? y : a.v[j];
        a.v[j] = dtrain::activation_gradient<kind.value>(seen, g.v[j] * b.v[j]);
        b.v[j] = g.v[j] * y;
      }
    });
    write_slot<width, T>(gx, first, a);
    write_slot<width, T>(gx, first + half, b);
  }
};

}  // namespace dtrain::cuda
