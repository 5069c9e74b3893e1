// Bodies of layer and batch normalization. Structs of arguments; see grid.hpp.
// What backward works out again of forward (the input of a relu) is made of the same fused operations in the same
// order, so that it has the same bits; where cuDNN went one of the two ways, a relu's input that rounds to zero in one
// may pass a gradient in the other.
#pragma once

#include <cmath>

#include "runtime/cuda/ops/column_bodies.hpp"
#include "runtime/ops/activation_math.hpp"

namespace dtrain::cuda {

// ---- layer norm: a warp a row --------------------------------------------------------------------------------------

template <class T, int width>
struct LayerNormRow {
  static constexpr int threads = block_threads, rows = threads / static_cast<int>(warp_size);
  using Shared = Nothing;

  /// Sum of value(channel, j) over the row of the warp's threads.
  template <class Thread, class Value>
  static DTRAIN_HOST_DEVICE float sum(Thread& t, std::int64_t channels, const Value& value) {
    float sum = 0;
    for (std::int64_t c = (t.index() % warp_size) * width; c < channels; c += warp_size * width) sum += value(c);
    return warp_sum(t, sum);
  }
  template <class Thread>
  static DTRAIN_HOST_DEVICE std::int64_t row(Thread& t) {
    return t.block() * rows + t.index() / warp_size;
  }
};

template <class T, int width>
struct LayerNormBody : LayerNormRow<T, width> {
  using Row = LayerNormRow<T, width>;
  using typename Row::Shared;
  Matrix shape;
  float epsilon;
  const T* x;
  const float *weight, *bias;
  T* y;
  float *mean_out, *inverse_out;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared&) const {
    const std::int64_t row = Row::row(t), n = shape.channels;
    if (row >= shape.rows) return;  // a whole warp
    const T* from = x + row * n;
    const float share = 1.0f / static_cast<float>(n);
    const float mean = Row::sum(t, n,
                                [&](std::int64_t c) {
                                  const Floats<width> v = load_floats<width>(from + c);
                                  float s = 0;
                                  for (int j = 0; j < width; ++j) s += v.v[j];
                                  return s;
                                }) *
                       share;
    const float squares = Row::sum(t, n, [&](std::int64_t c) {
      const Floats<width> v = load_floats<width>(from + c);
      float s = 0;
      for (int j = 0; j < width; ++j) s += (v.v[j] - mean) * (v.v[j] - mean);
      return s;
    });
    const float inverse = 1.0f / std::sqrt(squares * share + epsilon);
    if (mean_out != nullptr && t.index() % warp_size == 0) {
      mean_out[row] = mean;
      inverse_out[row] = inverse;
    }
    for (std::int64_t c = (t.index() % warp_size) * width; c < n; c += warp_size * width) {
      Floats<width> v = load_floats<width>(from + c);
      const Floats<width> scale = load_floats<width>(weight + c), shift = load_floats<width>(bias + c);
      for (int j = 0; j < width; ++j) v.v[j] = (v.v[j] - mean) * inverse * scale.v[j] + shift.v[j];
      store_floats<width>(y + row * n + c, v);
    }
  }
};

template <class T, int width>
struct LayerNormGradientBody : LayerNormRow<T, width> {
  using Row = LayerNormRow<T, width>;
  using typename Row::Shared;
  Matrix shape;
  const T *x, *gy;
  const float *weight, *mean, *inverse;
  Slot gx;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared&) const {
    const std::int64_t row = Row::row(t), n = shape.channels;
    if (row >= shape.rows) return;
    const T *from = x + row * n, *gradient = gy + row * n;
    const float m = mean[row], s = inverse[row], share = 1.0f / static_cast<float>(n);
    const auto scaled = [&](std::int64_t c) {
      Floats<width> g = load_floats<width>(gradient + c);
      const Floats<width> w = load_floats<width>(weight + c);
      for (int j = 0; j < width; ++j) g.v[j] *= w.v[j];
      return g;
    };
    const float level = Row::sum(t, n,
                                 [&](std::int64_t c) {
                                   const Floats<width> g = scaled(c);
                                   float sum = 0;
                                   for (int j = 0; j < width; ++j) sum += g.v[j];
                                   return sum;
                                 }) *
                        share;
    const float slope = Row::sum(t, n,
                                 [&](std::int64_t c) {
                                   const Floats<width> g = scaled(c), v = load_floats<width>(from + c);
                                   float sum = 0;
                                   for (int j = 0; j < width; ++j) sum += g.v[j] * ((v.v[j] - m) * s);
                                   return sum;
                                 }) *
                        share;
    for (std::int64_t c = (t.index() % warp_size) * width; c < n; c += warp_size * width) {
      Floats<width> g = scaled(c);
      const Floats<width> v = load_floats<width>(from + c);
      for (int j = 0; j < width; ++j) g.v[j] = s * ((g.v[j] - level) - (v.v[j] - m) * s * slope);
      write_slot<width, T>(gx, row * n + c, g);  // may be gy: each thread has read its own
    }
  }
};

template <class T, int w>
struct LayerNormParamsTerms {
  static constexpr int width = w;
  std::int64_t channels;
  const T *x, *gy;
  const float *mean, *inverse;
  DTRAIN_HOST_DEVICE Nothing column(std::int64_t) const { return {}; }
  DTRAIN_HOST_DEVICE void terms(const Nothing&, std::int64_t row, std::int64_t c, Floats<w>& first,
                                Floats<w>& second) const {
    first = load_floats<w>(gy + row * channels + c);
    const Floats<w> v = load_floats<w>(x + row * channels + c);
    const float m = mean[row], s = inverse[row];
    for (int j = 0; j < w; ++j) second.v[j] = first.v[j] * ((v.v[j] - m) * s);
  }
};
struct LayerNormParamsFinish {
  Slot weight, bias;
  DTRAIN_HOST_DEVICE void finish(std::int64_t c, double first, double second) const {
    write_slot<1, float>(weight, c, Floats<1>{{static_cast<float>(second)}});
    write_slot<1, float>(bias, c, Floats<1>{{static_cast<float>(first)}});
  }
};

// ---- batch norm: statistics ----------------------------------------------------------------------------------------

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

template <class T>
struct MomentsFinish {
  Matrix shape;
  const T* x;
  double* moments;
  DTRAIN_HOST_DEVICE void finish(std::int64_t c, double first, double second) const {
    const auto k = static_cast<double>(to_float(x[c])), n = static_cast<double>(shape.rows);
    moments[c] = first + n * k;
    moments[shape.channels + c] = second + 2 * k * first + n * k * k;
    if (c == 0) moments[2 * shape.channels] = n;
  }
};

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

template <class T>
struct StatisticsFinish {
  Matrix shape;
  double epsilon;
  const T* x;
  Statistics statistics;
  DTRAIN_HOST_DEVICE void finish(std::int64_t c, double first, double second) const {
    const auto n = static_cast<double>(shape.rows);
    const double off = first / n;
    keep_statistics(statistics, c, static_cast<double>(to_float(x[c])) + off, second / n - off * off, n, epsilon);
  }
};

struct AddStatistics {
  static constexpr int threads = block_threads;
  using Shared = Nothing;
  Matrix shape;
  double epsilon;
  Statistics statistics;
  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared&) const {
    const std::int64_t c = t.block() * threads + t.index();
    if (c >= shape.channels) return;
    const auto inverse = static_cast<double>(statistics.inverse[c]);
    const double variance = 1.0 / (inverse * inverse) - epsilon;
    add_to_sums(statistics, c, variance < 0 ? 0 : variance, static_cast<double>(shape.rows));
  }
};

struct StatisticsOfMoments {
  static constexpr int threads = block_threads;
  using Shared = Nothing;
  std::int64_t channels;
  double epsilon;
  const double* moments;
  Statistics statistics;
  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared&) const {
    const std::int64_t c = t.block() * threads + t.index();
    if (c >= channels) return;
    const double n = moments[2 * channels], mean = moments[c] / n;
    keep_statistics(statistics, c, mean, moments[channels + c] / n - mean * mean, n, epsilon);
  }
};

// ---- batch norm: element by element, channels kept in registers ----------------------------------------------------

/// f.apply(column, element, channel) for each group of channels of each row.
template <class F>
struct ApplyColumns {
  static constexpr int threads = Tiling::threads, width = F::width;
  using Shared = Nothing;
  Matrix shape;
  Tiling tiling;
  F f;
  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared&) const {
    const TilePlace at = tile_place<width>(t, tiling, shape.rows, shape.channels);
    if (!at.inside) return;
    const auto column = f.column(at.channel);
    for (std::int64_t row = at.row; row < at.end; row += at.step) f.apply(column, row * shape.channels + at.channel);
  }
};
template <class F>
void apply_columns(const Launch& where, const Matrix& shape, const F& f) {
  const Tiling tiling = tiling_of(shape.rows, shape.channels, F::width, rows_in_float, 4096);
  launch(where, tiling.blocks(), ApplyColumns<F>{shape, tiling, f});
}

template <int width>
struct NormColumn {
  Floats<width> mean, scale, shift;
};
template <int width>
DTRAIN_HOST_DEVICE inline NormColumn<width> norm_column(std::int64_t c, const float* centre, const float* inverse,
                                                        const float* weight, const float* bias) {
  NormColumn<width> column;
  column.mean = load_floats<width>(centre + c);
  column.scale = load_floats<width>(inverse + c);
  const Floats<width> w = load_floats<width>(weight + c), b = load_floats<width>(bias + c);
  for (int j = 0; j < width; ++j) {
    column.scale.v[j] *= w.v[j];
    column.shift.v[j] = std::fma(-column.mean.v[j], column.scale.v[j], b.v[j]);
  }
  return column;
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
    if (!running) return norm_column<w>(c, centre, spread, weight, bias);
    NormColumn<w> column{load_floats<w>(centre + c), load_floats<w>(spread + c), load_floats<w>(bias + c)};
    const Floats<w> factor = load_floats<w>(weight + c);
    for (int j = 0; j < w; ++j) {
      const auto inverse = static_cast<float>(1.0 / std::sqrt(static_cast<double>(column.scale.v[j]) + epsilon));
      column.scale.v[j] = factor.v[j] * inverse;
      column.shift.v[j] = std::fma(-column.mean.v[j], column.scale.v[j], column.shift.v[j]);
    }
    return column;
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
  DTRAIN_HOST_DEVICE NormColumn<w> column(std::int64_t c) const {
    return norm_column<w>(c, b.mean, b.inverse, b.weight, b.bias);
  }
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
    Column column{norm_column<w>(c, b.mean, b.inverse, b.weight, b.bias), {}, {}};
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

/// Through mean = sum / count and variance = squares / count - mean^2; the count is no variable.
struct MomentsGradientBody {
  static constexpr int threads = block_threads;
  using Shared = Nothing;
  std::int64_t channels;
  NormalizeBackward b;
  const double* moments;
  Slot gradients;
  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared&) const {
    const std::int64_t c = t.block() * threads + t.index();
    if (c > channels) return;
    if (c == channels) return put(2 * channels, 0);
    const double count = moments[2 * channels];
    const auto inverse = static_cast<double>(b.inverse[c]);
    const double scale = static_cast<double>(b.weight[c]) * inverse;
    const double of_variance = -0.5 * scale * inverse * static_cast<double>(b.sums[channels + c]);
    const double of_mean = -scale * static_cast<double>(b.sums[c]);
    put(c, (of_mean - 2 * (moments[c] / count) * of_variance) / count);
    put(channels + c, of_variance / count);
  }
  DTRAIN_HOST_DEVICE void put(std::int64_t i, double v) const {
    auto* to = static_cast<double*>(gradients.to);
    to[i] = gradients.put == Put::add ? to[i] + v : v;
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
