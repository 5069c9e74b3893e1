// The mean over whole images: what starts its kernels, and their bodies. Structs of arguments; see grid.hpp.
// Pointers are device memory that the caller owns until the stream was there.
#pragma once

#include "runtime/cuda/ops/channel_sums.hpp"

namespace dtrain::cuda {

void global_average(const Launch&, Element, const Images&, const void* x, void* y);
void global_average_gradient(const Launch&, Element, const Images&, const void* gy, Slot gx);

template <class T, int w>
struct GlobalAverageTerms {
  static constexpr int width = w;
  Images images;
  const T* x;
  T* y;
  DTRAIN_HOST_DEVICE Floats<width> term(std::int64_t, std::int64_t element, std::int64_t) const {
    return load_floats<width>(x + element);
  }
  DTRAIN_HOST_DEVICE void finish(std::int64_t sample, std::int64_t channel, double sum) const {
    y[sample * images.channels + channel] = from_float<T>(static_cast<float>(sum / static_cast<double>(images.pixels)));
  }
};

/// gx = gy / pixels
template <class T, int width>
struct GlobalAverageGradientBody {
  Images images;
  const T* gy;
  Slot gx;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Split in_pixel = split(i, images.channels / width);
    const std::int64_t sample = split(in_pixel.quotient, images.pixels).quotient;
    const float share = 1.0f / static_cast<float>(images.pixels);
    Floats<width> g = load_floats<width>(gy + sample * images.channels + in_pixel.rest * width);
    for (int j = 0; j < width; ++j) g.v[j] *= share;
    write_slot<width, T>(gx, i * width, g);
  }
};

}  // namespace dtrain::cuda
