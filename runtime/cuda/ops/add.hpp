// Sums of two values: what starts their kernels, and their bodies. Structs of arguments; see grid.hpp.
// Outputs may lie over inputs.
#pragma once

#include "runtime/cuda/vector.hpp"
#include "runtime/ops/activation_math.hpp"

namespace dtrain::cuda {

/// y = act(a + factor * b)
void add(const Launch&, Element, Activation, float factor, const void* a, const void* b, void* y, std::int64_t n);
void add_gradient(const Launch&, Element, Activation, float factor, const void* y, const void* gy, Slot ga, Slot gb,
                  std::int64_t n);

template <class T>
struct AddBody {
  using Element = T;
  Activation kind;
  float factor;
  const T *a, *b;
  T* y;
  template <int width>
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Floats<width> left = load_floats<width>(a + i), right = load_floats<width>(b + i);
    Floats<width> sum;
    with_epilogue(kind, [&](auto constant) {
      for (int j = 0; j < width; ++j) sum.v[j] = dtrain::activate<constant.value>(left.v[j] + factor * right.v[j]);
    });
    store_floats<width>(y + i, sum);
  }
};

template <class T>
struct AddGradientBody {
  using Element = T;
  Activation kind;
  float factor;
  const T *y, *gy;
  Slot ga, gb;
  template <int width>
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    Floats<width> g = load_floats<width>(gy + i);
    if (kind != Activation::none) {
      const Floats<width> seen = load_floats<width>(y + i);
      with_epilogue(kind, [&](auto constant) {
        for (int j = 0; j < width; ++j) g.v[j] = dtrain::activation_gradient<constant.value>(seen.v[j], g.v[j]);
      });
    }
    write_slot<width, T>(ga, i, g);
    for (int j = 0; j < width; ++j) g.v[j] *= factor;
    write_slot<width, T>(gb, i, g);
  }
};

}  // namespace dtrain::cuda
