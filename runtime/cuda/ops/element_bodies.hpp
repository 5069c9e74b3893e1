// Bodies of the kernels that go element by element: activations, sums, products, casts, copies and dropout.
// Structs of arguments; see grid.hpp. Within a thread everything of an element is read before it is written, so that
// outputs may lie over inputs.
#pragma once

#include <type_traits>

#include "runtime/cuda/vector.hpp"
#include "runtime/ops/activation_math.hpp"

namespace dtrain::cuda {

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

template <class T>
struct AddBody {
  using Element = T;
  Activation kind;
  const T *a, *b;
  T* y;
  template <int width>
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Floats<width> left = load_floats<width>(a + i), right = load_floats<width>(b + i);
    Floats<width> sum;
    with_epilogue(kind, [&](auto constant) {
      for (int j = 0; j < width; ++j) sum.v[j] = dtrain::activate<constant.value>(left.v[j] + right.v[j]);
    });
    store_floats<width>(y + i, sum);
  }
};

template <class T>
struct AddGradientBody {
  using Element = T;
  Activation kind;
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
    write_slot<width, T>(gb, i, g);
  }
};

template <class T>
struct MultiplyBody {
  using Element = T;
  const T *a, *b;
  T* y;
  template <int width>
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    Floats<width> v = load_floats<width>(a + i);
    const Floats<width> by = load_floats<width>(b + i);
    for (int j = 0; j < width; ++j) v.v[j] *= by.v[j];
    store_floats<width>(y + i, v);
  }
};

template <class T>
struct MultiplyGradientBody {
  using Element = T;
  const T *a, *b, *gy;
  Slot ga, gb;
  template <int width>
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Floats<width> g = load_floats<width>(gy + i);
    Floats<width> of_b = load_floats<width>(a + i), of_a = load_floats<width>(b + i);
    for (int j = 0; j < width; ++j) {
      of_a.v[j] *= g.v[j];
      of_b.v[j] *= g.v[j];
    }
    write_slot<width, T>(ga, i, of_a);
    write_slot<width, T>(gb, i, of_b);
  }
};

template <class From, class To>
struct CastBody {
  /// Groups as the wider of the two types has them in 16 bytes.
  using Element = std::conditional_t<(sizeof(From) > sizeof(To)), From, To>;
  const From* from;
  Slot to;
  template <int width>
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    write_slot<width, To>(to, i, load_floats<width>(from + i));
  }
};

/// In groups of a row: `columns` and the steps count elements.
template <class T, int width>
struct CopyRowsBody {
  static constexpr int threads = block_threads;
  using Shared = Nothing;
  Rows rows;
  const T* from;
  Slot to;
  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared&) const {
    const std::int64_t groups = rows.columns / width, all = rows.rows * groups;
    for (std::int64_t i = t.block() * threads + t.index(); i < all; i += t.blocks() * threads) {
      const Split at = split(i, groups);
      write_slot<width, T>(to, at.quotient * rows.to_step + at.rest * width,
                           load_floats<width>(from + at.quotient * rows.from_step + at.rest * width));
    }
  }
};

// ---- dropout -------------------------------------------------------------------------------------------------------

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
