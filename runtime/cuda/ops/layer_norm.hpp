// Layer normalization: what starts its kernels, and their bodies, a warp a row. Structs of arguments; see grid.hpp.
// Pointers are device memory that the caller owns until the stream was there.
#pragma once

#include "runtime/cuda/ops/row_sums.hpp"

namespace dtrain::cuda {

void layer_norm(const Launch&, Element, const Matrix&, float epsilon, const void* x, const float* weight,
                const float* bias, void* y, float* mean, float* inverse);  // the last two: null keeps nothing
void layer_norm_gradient(const Launch&, Element, const Matrix&, const void* x, const void* gy, const float* weight,
                         const float* mean, const float* inverse, Slot gx);
/// Workspace: sums_bytes().
void layer_norm_params_gradient(const Launch&, Element, const Matrix&, const void* x, const void* gy, const float* mean,
                                const float* inverse, Slot weight, Slot bias, void* workspace);

template <class T, int width>
struct LayerNormBody : WarpRow<width> {
  float epsilon;
  const T* x;
  const float *weight, *bias;
  T* y;
  float *mean_out, *inverse_out;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Nothing&) const {
    const std::int64_t row = this->row(t), n = this->shape.channels;
    if (row >= this->shape.rows) return;  // a whole warp
    const T* from = x + row * n;
    const float share = 1.0f / static_cast<float>(n);
    const float mean = this->sum(t, [&](std::int64_t c) { return load_floats<width>(from + c); }) * share;
    const float squares = this->sum(t, [&](std::int64_t c) {
      Floats<width> v = load_floats<width>(from + c);
      for (int j = 0; j < width; ++j) v.v[j] = (v.v[j] - mean) * (v.v[j] - mean);
      return v;
    });
    const float inverse = 1.0f / std::sqrt(squares * share + epsilon);
    if (mean_out != nullptr && t.index() % warp_size == 0) {
      mean_out[row] = mean;
      inverse_out[row] = inverse;
    }
    this->each(t, [&](std::int64_t c) {
      Floats<width> v = load_floats<width>(from + c);
      const Floats<width> scale = load_floats<width>(weight + c), shift = load_floats<width>(bias + c);
      for (int j = 0; j < width; ++j) v.v[j] = (v.v[j] - mean) * inverse * scale.v[j] + shift.v[j];
      store_floats<width>(y + row * n + c, v);
    });
  }
};

template <class T, int width>
struct LayerNormGradientBody : WarpRow<width> {
  const T *x, *gy;
  const float *weight, *mean, *inverse;
  Slot gx;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Nothing&) const {
    const std::int64_t row = this->row(t), n = this->shape.channels;
    if (row >= this->shape.rows) return;
    const T *from = x + row * n, *gradient = gy + row * n;
    const float m = mean[row], s = inverse[row], share = 1.0f / static_cast<float>(n);
    const auto scaled = [&](std::int64_t c) {
      Floats<width> g = load_floats<width>(gradient + c);
      const Floats<width> w = load_floats<width>(weight + c);
      for (int j = 0; j < width; ++j) g.v[j] *= w.v[j];
      return g;
    };
    const float level = this->sum(t, scaled) * share;
    const float slope = this->sum(t, [&](std::int64_t c) {
      Floats<width> g = scaled(c);
      const Floats<width> v = load_floats<width>(from + c);
      for (int j = 0; j < width; ++j) g.v[j] *= (v.v[j] - m) * s;
      return g;
    }) * share;
    this->each(t, [&](std::int64_t c) {
      Floats<width> g = scaled(c);
      const Floats<width> v = load_floats<width>(from + c);
      for (int j = 0; j < width; ++j) g.v[j] = s * ((g.v[j] - level) - (v.v[j] - m) * s * slope);
      write_slot<width, T>(gx, row * n + c, g);  // may be gy: each thread has read its own
    });
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

}  // namespace dtrain::cuda
