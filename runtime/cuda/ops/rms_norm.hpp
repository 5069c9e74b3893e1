// RMS normalization: what its kernels are given, and their bodies, a warp a row. Structs of arguments; see grid.hpp.
// Pointers are device memory that the caller owns until the stream was there.
#pragma once

#include "runtime/cuda/ops/row_sums.hpp"

namespace dtrain::cuda {

struct RmsNormPlace {
  Matrix shape;
  const void* x;
  const float* weight;
};
/// `inverse`: null keeps nothing.
void rms_norm(const Launch&, Element, const RmsNormPlace&, float epsilon, void* y, float* inverse);
void rms_norm_gradient(const Launch&, Element, const RmsNormPlace&, const void* gy, const float* inverse, Slot gx);
/// Workspace: sums_bytes().
void rms_norm_weight_gradient(const Launch&, Element, const RmsNormPlace&, const void* gy, const float* inverse,
                              Slot weight, void* workspace);

template <class T, int width>
struct RmsNormBody : WarpRow<width> {
  float epsilon;
  const T* x;
  const float* weight;
  T* y;
  float* inverse_out;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Nothing&) const {
    const std::int64_t row = this->row(t), n = this->shape.channels;
    if (row >= this->shape.rows) return;  // a whole warp
    const T* from = x + row * n;
    const float squares = this->sum(t, [&](std::int64_t c) {
      Floats<width> v = load_floats<width>(from + c);
      for (int j = 0; j < width; ++j) v.v[j] *= v.v[j];
      return v;
    });
    const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(n) + epsilon);
    if (inverse_out != nullptr && t.index() % warp_size == 0) inverse_out[row] = inverse;
    this->each(t, [&](std::int64_t c) {
      Floats<width> v = load_floats<width>(from + c);
      const Floats<width> scale = load_floats<width>(weight + c);
      for (int j = 0; j < width; ++j) v.v[j] = v.v[j] * inverse * scale.v[j];
      store_floats<width>(y + row * n + c, v);
    });
  }
};

template <class T, int width>
struct RmsNormGradientBody : WarpRow<width> {
  const T *x, *gy;
  const float *weight, *inverse;
  Slot gx;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Nothing&) const {
    const std::int64_t row = this->row(t), n = this->shape.channels;
    if (row >= this->shape.rows) return;
    const T *from = x + row * n, *gradient = gy + row * n;
    const float s = inverse[row];
    const auto scaled = [&](std::int64_t c) {
      Floats<width> g = load_floats<width>(gradient + c);
      const Floats<width> w = load_floats<width>(weight + c);
      for (int j = 0; j < width; ++j) g.v[j] *= w.v[j];
      return g;
    };
    const float slope = this->sum(t, [&](std::int64_t c) {
      Floats<width> g = scaled(c);
      const Floats<width> v = load_floats<width>(from + c);
      for (int j = 0; j < width; ++j) g.v[j] *= v.v[j] * s;
      return g;
    }) / static_cast<float>(n);
    this->each(t, [&](std::int64_t c) {
      Floats<width> g = scaled(c);
      const Floats<width> v = load_floats<width>(from + c);
      for (int j = 0; j < width; ++j) g.v[j] = s * (g.v[j] - v.v[j] * s * slope);
      write_slot<width, T>(gx, row * n + c, g);  // may be gy: each thread has read its own
    });
  }
};

/// One sum a channel; the other of sum_columns stays 0.
template <class T, int w>
struct RmsNormWeightTerms {
  static constexpr int width = w;
  std::int64_t channels;
  const T *x, *gy;
  const float* inverse;
  DTRAIN_HOST_DEVICE Nothing column(std::int64_t) const { return {}; }
  DTRAIN_HOST_DEVICE void terms(const Nothing&, std::int64_t row, std::int64_t c, Floats<w>& first,
                                Floats<w>& second) const {
    first = load_floats<w>(gy + row * channels + c);
    const Floats<w> v = load_floats<w>(x + row * channels + c);
    const float s = inverse[row];
    for (int j = 0; j < w; ++j) first.v[j] *= v.v[j] * s;
    second = {};
  }
};
struct RmsNormWeightFinish {
  Slot weight;
  DTRAIN_HOST_DEVICE void finish(std::int64_t c, double first, double) const {
    write_slot<1, float>(weight, c, Floats<1>{{static_cast<float>(first)}});
  }
};

}  // namespace dtrain::cuda
