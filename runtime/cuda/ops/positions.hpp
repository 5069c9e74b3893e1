// Learned positions: what starts their kernels, and their bodies. Structs of arguments; see grid.hpp. Outputs may lie
// over inputs.
#pragma once

#include "runtime/cuda/vector.hpp"

namespace dtrain::cuda {

/// `shape`: samples, and elements of one; x has the type, weight is float32.
void add_positions(const Launch&, Element, const Matrix& shape, const void* x, const float* weight, void* y);
/// Adds the samples in their order; elements from those of a sample to `weights` are zeros.
void positions_gradient(const Launch&, Element, const Matrix& shape, std::int64_t weights, const void* gy, Slot weight);

/// The rows from lengths[sample] on, the last one for what lies behind it.
struct PositionsBehind {
  std::int64_t positions, channels, rows;
  const std::int32_t* lengths;
};
void add_positions_behind(const Launch&, Element, std::int64_t samples, const PositionsBehind&, const void* x,
                          const float* weight, void* y);

template <class T>
struct AddPositionsBehindBody {
  PositionsBehind p;
  const T* x;
  const float* weight;
  T* y;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Split by_channel = split(i, p.channels), by_position = split(by_channel.quotient, p.positions);
    std::int64_t row = p.lengths[by_position.quotient] + by_position.rest;
    row = row < 0 ? 0 : row < p.rows ? row : p.rows - 1;
    y[i] = from_float<T>(to_float(x[i]) + weight[row * p.channels + by_channel.rest]);
  }
};

template <class T, int width>
struct AddPositionsBody {
  std::int64_t elements;
  const T* x;
  const float* weight;
  T* y;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    Floats<width> v = load_floats<width>(x + i * width);
    const Floats<width> w = load_floats<width>(weight + split(i, elements / width).rest * width);
    for (int j = 0; j < width; ++j) v.v[j] += w.v[j];
    store_floats<width>(y + i * width, v);
  }
};

template <class T>
struct PositionsGradientBody {
  Matrix shape;
  const T* gy;
  Slot weight;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    float sum = 0;
    if (i < shape.channels)
      for (std::int64_t sample = 0; sample < shape.rows; ++sample) sum += to_float(gy[sample * shape.channels + i]);
    write_slot<1, float>(weight, i, Floats<1>{{sum}});
  }
};

}  // namespace dtrain::cuda
