// Values kept between -cap and cap: what starts their kernels, and their bodies. Structs of arguments; see grid.hpp.
// Within a thread everything of an element is read before it is written, so that outputs may lie over inputs.
#pragma once

#include "runtime/cuda/vector.hpp"
#include "runtime/ops/soft_cap.hpp"

namespace dtrain::cuda {

void soft_cap(const Launch&, Element, const SoftCapMath&, const void* x, void* y, std::int64_t n);
void soft_cap_gradient(const Launch&, Element, const SoftCapMath&, const void* y, const void* gy, Slot gx,
                       std::int64_t n);

template <class T>
struct SoftCapBody {
  using Element = T;
  SoftCapMath math;
  const T* x;
  T* y;
  template <int width>
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    Floats<width> v = load_floats<width>(x + i);
    for (int j = 0; j < width; ++j) v.v[j] = math.value(v.v[j]);
    store_floats<width>(y + i, v);
  }
};

template <class T>
struct SoftCapGradientBody {
  using Element = T;
  SoftCapMath math;
  const T *y, *gy;
  Slot gx;
  template <int width>
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Floats<width> v = load_floats<width>(y + i);
    Floats<width> g = load_floats<width>(gy + i);
    for (int j = 0; j < width; ++j) g.v[j] = math.gradient(v.v[j], g.v[j]);
    write_slot<width, T>(gx, i, g);
  }
};

}  // namespace dtrain::cuda
