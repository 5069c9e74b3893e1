// Products of two values, or of a value and one a channel: what starts their kernels, and their bodies. Structs of
// arguments; see grid.hpp. Outputs may lie over inputs of equal shape.
#pragma once

#include "runtime/cuda/ops/channel_sums.hpp"

namespace dtrain::cuda {

void multiply(const Launch&, Element, const void* a, const void* b, void* y, std::int64_t n);
void multiply_gradient(const Launch&, Element, const void* a, const void* b, const void* gy, Slot ga, Slot gb,
                       std::int64_t n);
/// y = a * b, b [samples, channels]
void scale_channels(const Launch&, Element, const Images&, const void* a, const void* b, void* y);
void scale_channels_gradient(const Launch&, Element, const Images&, const void* a, const void* b, const void* gy,
                             Slot ga, Slot gb);

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

template <class T, int width>
struct ScaleChannelsBody {
  Images images;
  const T *a, *b;
  T* y;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Split in_pixel = split(i, images.channels / width);
    const std::int64_t sample = split(in_pixel.quotient, images.pixels).quotient;
    Floats<width> v = load_floats<width>(a + i * width);
    const Floats<width> by = load_floats<width>(b + sample * images.channels + in_pixel.rest * width);
    for (int j = 0; j < width; ++j) v.v[j] *= by.v[j];
    store_floats<width>(y + i * width, v);
  }
};

/// Of y = a * b: the gradient of b is a sum, and that of a is written on the way (it may lie over gy).
template <class T, int w>
struct ScaleChannelsGradientTerms {
  static constexpr int width = w;
  Images images;
  const T *a, *b, *gy;
  Slot ga, gb;
  DTRAIN_HOST_DEVICE Floats<width> term(std::int64_t sample, std::int64_t element, std::int64_t channel) const {
    const Floats<width> g = load_floats<width>(gy + element), factor = load_floats<width>(a + element);
    if (ga.put != Put::none) {
      Floats<width> of_a = load_floats<width>(b + sample * images.channels + channel);
      for (int j = 0; j < width; ++j) of_a.v[j] *= g.v[j];
      write_slot<width, T>(ga, element, of_a);
    }
    Floats<width> product;
    for (int j = 0; j < width; ++j) product.v[j] = g.v[j] * factor.v[j];
    return product;
  }
  DTRAIN_HOST_DEVICE void finish(std::int64_t sample, std::int64_t channel, double sum) const {
    write_slot<1, T>(gb, sample * images.channels + channel, Floats<1>{{static_cast<float>(sum)}});
  }
};

}  // namespace dtrain::cuda
