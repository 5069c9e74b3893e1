// What batch normalization shares, of a micro batch or with moments of all ranks: the normalization itself and its
// gradients, as functions that start kernels and their bodies. Structs of arguments; see grid.hpp.
// What backward works out again of forward (the input of a relu) is made of the same fused operations in the same
// order, so that it has the same bits; where cuDNN went one of the two ways, a relu's input that rounds to zero in one
// may pass a gradient in the other.
#pragma once

#include <cmath>

#include "runtime/cuda/ops/channel_sums.hpp"
#include "runtime/ops/activation_math.hpp"

namespace dtrain::cuda {

struct BatchNormPlace {
  Matrix shape;
  Activation activation;
  double epsilon;
};
/// What batch norm keeps of a micro batch: to `mean` and `inverse`, and added to the step's sums (overwritten by the
/// first).
struct Statistics {
  float *mean, *inverse, *mean_sum, *variance_sum;
  bool first;
};
/// y = act(...). `spread`: 1 / standard deviation, or a variance where `running`.
void normalize(const Launch&, Element, const BatchNormPlace&, const void* x, const float* centre, const float* spread,
               bool running, const float* weight, const float* bias, void* y);
/// What backward of batch norm reads; `sums` [2, channels]: of the gradient, and of its product with the normalized x.
struct NormalizeBackward {
  const void *x, *y, *gy;
  const float *mean, *inverse, *weight, *bias;
  float* sums;
};
void normalize_params_gradient(const Launch&, Element, const BatchNormPlace&, const NormalizeBackward&, Slot weight,
                               Slot bias, void* workspace);
/// `moments_held`: their gradient goes its own way, or they are constants.
void normalize_gradient(const Launch&, Element, const BatchNormPlace&, const NormalizeBackward&, bool moments_held,
                        Slot gx);

DTRAIN_HOST_DEVICE inline void add_to_sums(const Statistics& s, std::int64_t c, double variance, double count) {
  const auto unbiased = static_cast<float>(variance * count / (count > 2 ? count - 1 : 1.0));
  s.mean_sum[c] = (s.first ? 0.0f : s.mean_sum[c]) + s.mean[c];
  s.variance_sum[c] = (s.first ? 0.0f : s.variance_sum[c]) + unbiased;
}

DTRAIN_HOST_DEVICE inline void keep_statistics(const Statistics& s, std::int64_t c, double mean, double variance,
                                               double count, double epsilon) {
  variance = variance < 0 ? 0 : variance;  // NaN stays
  s.mean[c] = static_cast<float>(mean);
  s.inverse[c] = static_cast<float>(1.0 / std::sqrt(variance + epsilon));
  add_to_sums(s, c, variance, count);
}

template <int width>
struct NormColumn {
  Floats<width> mean, scale, shift;
};
template <int width>
DTRAIN_HOST_DEVICE inline NormColumn<width> norm_column(std::int64_t c, const float* centre,
                                                        const Floats<width>& inverse, const float* weight,
                                                        const float* bias) {
  NormColumn<width> column{load_floats<width>(centre + c), inverse, {}};
  const Floats<width> w = load_floats<width>(weight + c), b = load_floats<width>(bias + c);
  for (int j = 0; j < width; ++j) {
    column.scale.v[j] *= w.v[j];
    column.shift.v[j] = std::fma(-column.mean.v[j], column.scale.v[j], b.v[j]);
  }
  return column;
}
template <int width>
DTRAIN_HOST_DEVICE inline NormColumn<width> norm_column(std::int64_t c, const NormalizeBackward& b) {
  return norm_column<width>(c, b.mean, load_floats<width>(b.inverse + c), b.weight, b.bias);
}

template <class T, int w>
struct NormalizeBody {
  static constexpr int width = w;
  Activation kind;
  double epsilon;
  bool running;
  const T* x;
  const float *centre, *spread, *weight, *bias;
  T* y;
  DTRAIN_HOST_DEVICE NormColumn<w> column(std::int64_t c) const {
    Floats<w> inverse = load_floats<w>(spread + c);
    if (running)
      for (int j = 0; j < w; ++j)
        inverse.v[j] = static_cast<float>(1.0 / std::sqrt(static_cast<double>(inverse.v[j]) + epsilon));
    return norm_column<w>(c, centre, inverse, weight, bias);
  }
  DTRAIN_HOST_DEVICE void apply(const NormColumn<w>& column, std::int64_t i) const {
    Floats<w> v = load_floats<w>(x + i);
    with_epilogue(kind, [&](auto constant) {
      for (int j = 0; j < w; ++j)
        v.v[j] = dtrain::activate<constant.value>(std::fma(v.v[j], column.scale.v[j], column.shift.v[j]));
    });
    store_floats<w>(y + i, v);
  }
};

/// Gradient before the activation, of `width` elements from i on.
template <class T, int width>
DTRAIN_HOST_DEVICE inline Floats<width> gradient_at(const NormalizeBackward& b, Activation kind,
                                                    const NormColumn<width>& column, const Floats<width>& x,
                                                    std::int64_t i) {
  Floats<width> g = load_floats<width>(static_cast<const T*>(b.gy) + i);
  if (kind == Activation::none) return g;
  Floats<width> seen;
  if (kind == Activation::relu) {
    for (int j = 0; j < width; ++j) seen.v[j] = std::fma(x.v[j], column.scale.v[j], column.shift.v[j]);
  } else {
    seen = load_floats<width>(static_cast<const T*>(b.y) + i);
  }
  with_epilogue(kind, [&](auto constant) {
    for (int j = 0; j < width; ++j) g.v[j] = dtrain::activation_gradient<constant.value>(seen.v[j], g.v[j]);
  });
  return g;
}

template <class T, int w>
struct NormalizeParamsTerms {
  static constexpr int width = w;
  std::int64_t channels;
  Activation kind;
  NormalizeBackward b;
  DTRAIN_HOST_DEVICE NormColumn<w> column(std::int64_t c) const { return norm_column<w>(c, b); }
  DTRAIN_HOST_DEVICE void terms(const NormColumn<w>& column, std::int64_t row, std::int64_t c, Floats<w>& first,
                                Floats<w>& second) const {
    const std::int64_t i = row * channels + c;
    const Floats<w> x = load_floats<w>(static_cast<const T*>(b.x) + i);
    first = gradient_at<T, w>(b, kind, column, x, i);
    for (int j = 0; j < w; ++j) second.v[j] = first.v[j] * (x.v[j] - column.mean.v[j]);
  }
};
struct NormalizeParamsFinish {
  std::int64_t channels;
  const float* inverse;
  float* sums;
  Slot weight, bias;
  DTRAIN_HOST_DEVICE void finish(std::int64_t c, double first, double second) const {
    const auto of_bias = static_cast<float>(first);
    const auto of_weight = static_cast<float>(second * static_cast<double>(inverse[c]));
    sums[c] = of_bias;
    sums[channels + c] = of_weight;
    write_slot<1, float>(weight, c, Floats<1>{{of_weight}});
    write_slot<1, float>(bias, c, Floats<1>{{of_bias}});
  }
};

template <class T, int w>
struct NormalizeGradientBody {
  static constexpr int width = w;
  Matrix shape;
  Activation kind;
  bool moments_held;
  NormalizeBackward b;
  Slot gx;
  struct Column {
    NormColumn<w> norm;
    Floats<w> offset, slope;
  };
  DTRAIN_HOST_DEVICE Column column(std::int64_t c) const {
    Column column{norm_column<w>(c, b), {}, {}};
    if (moments_held) return column;
    const auto count = static_cast<float>(shape.rows);
    column.offset = load_floats<w>(b.sums + c);
    const Floats<w> inverse = load_floats<w>(b.inverse + c);
    for (int j = 0; j < w; ++j) {
      column.offset.v[j] = column.norm.scale.v[j] * (column.offset.v[j] / count);
      column.slope.v[j] = column.norm.scale.v[j] * inverse.v[j] * (b.sums[shape.channels + c + j] / count);
    }
    return column;
  }
  DTRAIN_HOST_DEVICE void apply(const Column& column, std::int64_t i) const {
    const Floats<w> x = load_floats<w>(static_cast<const T*>(b.x) + i);
    Floats<w> g = gradient_at<T, w>(b, kind, column.norm, x, i);
    for (int j = 0; j < w; ++j) {
      g.v[j] =
          (column.norm.scale.v[j] * g.v[j] - column.offset.v[j]) - (x.v[j] - column.norm.mean.v[j]) * column.slope.v[j];
    }
    write_slot<w, T>(gx, i, g);  // may be gy
  }
};

}  // namespace dtrain::cuda
