// Dropout of elements or of whole samples: what starts its kernels, and their bodies. Structs of arguments; see
// grid.hpp. Outputs may lie over inputs.
#pragma once

#include "runtime/cuda/vector.hpp"

namespace dtrain::cuda {

struct DropoutShape {
  std::int64_t samples, features;
  std::uint32_t id, threshold;  // draws of 24 bits below it are dropped
  float scale;
  bool whole_sample;
};
/// `mask`: a byte a sample or an element.
void dropout(const Launch&, Element, const DropoutShape&, const StepState*, const std::uint64_t* positions,
             const void* x, void* y, std::uint8_t* mask);
void dropout_gradient(const Launch&, Element, const DropoutShape&, const std::uint8_t* mask, const void* gy, Slot gx);

/// Whether each of `width` elements from element `e` of a sample on is kept. Four elements share a draw4; e is a
/// multiple of four, or width is 1.
template <int width>
DTRAIN_HOST_DEVICE inline Vector<std::uint8_t, width> kept(const DropoutShape& shape, RandomKey key,
                                                           std::uint64_t position, std::int64_t e) {
  Vector<std::uint8_t, width> keep{};
  if (shape.whole_sample) {
    const bool all = (draw4(key, position, shape.id, 0).v[0] >> 8) >= shape.threshold;
    for (int j = 0; j < width; ++j) keep.v[j] = all;
    return keep;
  }
  if constexpr (width == 1) {
    const Random4 r = draw4(key, position, shape.id, static_cast<std::uint32_t>(e / 4));
    const std::uint32_t draw = e % 4 == 0 ? r.v[0] : e % 4 == 1 ? r.v[1] : e % 4 == 2 ? r.v[2] : r.v[3];
    keep.v[0] = (draw >> 8) >= shape.threshold;
  } else {
    for (int block = 0; block < width / 4; ++block) {
      const Random4 r = draw4(key, position, shape.id, static_cast<std::uint32_t>(e / 4 + block));
      for (int j = 0; j < 4; ++j) keep.v[4 * block + j] = (r.v[j] >> 8) >= shape.threshold;
    }
  }
  return keep;
}

template <class T>
struct DropoutBody {
  using Element = T;
  DropoutShape shape;
  const StepState* step;
  const std::uint64_t* positions;
  const T* x;
  T* y;
  std::uint8_t* mask;
  template <int width>
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Split at = split(i, shape.features);
    const RandomKey key = random_key(step->seed, Purpose::dropout);
    const Vector<std::uint8_t, width> keep = kept<width>(shape, key, positions[at.quotient], at.rest);
    Floats<width> v = load_floats<width>(x + i);
    for (int j = 0; j < width; ++j) v.v[j] = keep.v[j] != 0 ? v.v[j] * shape.scale : 0.0f;
    store_floats<width>(y + i, v);
    if (!shape.whole_sample) {
      store<width>(mask + i, keep);
    } else if (at.rest == 0) {
      mask[at.quotient] = keep.v[0];
    }
  }
};

template <class T>
struct DropoutGradientBody {
  using Element = T;
  DropoutShape shape;
  const std::uint8_t* mask;
  const T* gy;
  Slot gx;
  template <int width>
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    Floats<width> g = load_floats<width>(gy + i);
    Vector<std::uint8_t, width> keep{};
    if (shape.whole_sample) {
      const std::uint8_t all = mask[split(i, shape.features).quotient];
      for (int j = 0; j < width; ++j) keep.v[j] = all;
    } else {
      keep = load<width>(mask + i);
    }
    for (int j = 0; j < width; ++j) g.v[j] = keep.v[j] != 0 ? g.v[j] * shape.scale : 0.0f;
    write_slot<width, T>(gx, i, g);
  }
};

}  // namespace dtrain::cuda
