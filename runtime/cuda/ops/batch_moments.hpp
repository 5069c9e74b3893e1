// Sums of a micro batch for batch normalization over ranks: what starts their kernels, and their bodies. Structs of
// arguments; see grid.hpp. Workspace: sums_bytes().
#pragma once

#include "runtime/cuda/ops/channel_sums.hpp"

namespace dtrain::cuda {

/// Sum, sum of squares of each channel and their count: [2 channels + 1].
void batch_moments(const Launch&, Element, const Matrix&, const void* x, double* moments, void* workspace);
void batch_moments_gradient(const Launch&, Element, const Matrix&, const void* x, const double* gradients, Slot gx);

DTRAIN_HOST_DEVICE inline double value_at(Element element, const void* x, std::int64_t i) {
  if (element == Element::bf16) return static_cast<double>(to_float(static_cast<const Bf16*>(x)[i]));
  if (element == Element::f16) return static_cast<double>(to_float(static_cast<const F16*>(x)[i]));
  return static_cast<double>(static_cast<const float*>(x)[i]);
}

/// Sums of x - k and of its square, k the channel's first value: what is lost of a large mean is little.
template <class T, int w>
struct MomentTerms {
  static constexpr int width = w;
  std::int64_t channels;
  const T* x;
  DTRAIN_HOST_DEVICE Floats<w> column(std::int64_t c) const { return load_floats<w>(x + c); }
  DTRAIN_HOST_DEVICE void terms(const Floats<w>& first_row, std::int64_t row, std::int64_t c, Floats<w>& first,
                                Floats<w>& second) const {
    first = load_floats<w>(x + row * channels + c);
    for (int j = 0; j < w; ++j) {
      first.v[j] -= first_row.v[j];
      second.v[j] = first.v[j] * first.v[j];
    }
  }
};
/// The finish of such sums over the rows of x.
struct MomentsFinish {
  Matrix shape;
  Element element;
  const void* x;
  double* moments;
  DTRAIN_HOST_DEVICE void finish(std::int64_t c, double first, double second) const {
    const double k = value_at(element, x, c), n = static_cast<double>(shape.rows);
    moments[c] = first + n * k;
    moments[shape.channels + c] = second + 2 * k * first + n * k * k;
    if (c == 0) moments[2 * shape.channels] = n;
  }
};

/// gx = gradient of the sum + 2 x * gradient of the sum of squares.
template <class T, int w>
struct BatchMomentsGradientBody {
  static constexpr int width = w;
  std::int64_t channels;
  const T* x;
  const double* gradients;
  Slot gx;
  struct Column {
    double of_sum[w], of_square[w];
  };
  DTRAIN_HOST_DEVICE Column column(std::int64_t c) const {
    Column column;
    for (int j = 0; j < w; ++j) {
      column.of_sum[j] = gradients[c + j];
      column.of_square[j] = 2 * gradients[channels + c + j];
    }
    return column;
  }
  DTRAIN_HOST_DEVICE void apply(const Column& column, std::int64_t i) const {
    Floats<w> v = load_floats<w>(x + i);
    for (int j = 0; j < w; ++j)
      v.v[j] = static_cast<float>(column.of_sum[j] + static_cast<double>(v.v[j]) * column.of_square[j]);
    write_slot<w, T>(gx, i, v);
  }
};

}  // namespace dtrain::cuda
