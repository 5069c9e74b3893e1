// Activations: what starts their kernels, and their bodies. Structs of arguments; see grid.hpp.
// Within a thread everything of an element is read before it is written, so that outputs may lie over inputs.
#pragma once

#include "runtime/cuda/vector.hpp"
#include "runtime/ops/activation_math.hpp"

namespace dtrain::cuda {

void activate(const Launch&, Element, Activation, const void* x, void* y, std::int64_t n);
/// `seen`: the output where derivative_of_output, else the input.
void activation_gradient(const Launch&, Element, Activation, const void* seen, const void* gy, Slot gx, std::int64_t n);

template <class T>
struct ActivateBody {
  using Element = T;
  Activation kind;
  const T* x;
  T* y;
  template <int width>
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    Floats<width> v = load_floats<width>(x + i);
    with_activation(kind, [&](auto constant) {
      for (int j = 0; j < width; ++j) v.v[j] = dtrain::activate<constant.value>(v.v[j]);
    });
    store_floats<width>(y + i, v);
  }
};

template <class T>
struct ActivationGradientBody {
  using Element = T;
  Activation kind;
  const T *seen, *gy;
  Slot gx;
  template <int width>
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Floats<width> s = load_floats<width>(seen + i);
    Floats<width> g = load_floats<width>(gy + i);
    with_activation(kind, [&](auto constant) {
      for (int j = 0; j < width; ++j) g.v[j] = dtrain::activation_gradient<constant.value>(s.v[j], g.v[j]);
    });
    write_slot<width, T>(gx, i, g);
  }
};

}  // namespace dtrain::cuda
