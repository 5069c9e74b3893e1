// Upsampling, forward and backward: a thread has `width` channels of a pixel, of the output or, in backward, of the
// input, where it gathers what pixels of the output gave. Structs of arguments (grid.hpp), and what starts them.
#pragma once

#include <cstdint>

#include "runtime/cuda/ops/window_loops.hpp"

namespace dtrain::cuda {

/// One axis. Linear: between the centres of pixels; in front of the first centre and behind the last one their values.
struct UpsampleAxis {
  std::int64_t extent, factor;
  bool linear;

  /// The pixels of the input that pixel i of the output may read.
  DTRAIN_HOST_DEVICE PixelRange read_by(std::int64_t i) const {
    if (!linear) {
      const std::int64_t from = split(i, factor).quotient;
      return {from, from + 1};
    }
    const std::int64_t shifted = 2 * i + 1 - factor;  // where its centre lies, in 1 / (2 factor) of a pixel
    const std::int64_t first = shifted > 0 ? split(shifted, 2 * factor).quotient : 0;
    return {first, first + 2 < extent ? first + 2 : extent};
  }
  /// The pixels of the output that may read pixel j of the input.
  DTRAIN_HOST_DEVICE PixelRange readers_of(std::int64_t j) const {
    const std::int64_t more = linear ? factor / 2 : 0, begin = j * factor - more, end = (j + 1) * factor + more;
    return {begin > 0 ? begin : 0, end < extent * factor ? end : extent * factor};
  }
  /// What pixel j of the input counts in pixel i of the output, one of its readers.
  DTRAIN_HOST_DEVICE float weight(std::int64_t i, std::int64_t j) const {
    if (!linear) return 1.0f;
    const std::int64_t shifted = 2 * i + 1 - factor, last = 2 * factor * (extent - 1);
    const std::int64_t centre = shifted < 0 ? 0 : shifted > last ? last : shifted;
    const std::int64_t apart = centre - 2 * factor * j, distance = apart < 0 ? -apart : apart;
    return distance < 2 * factor ? 1.0f - static_cast<float>(distance) / static_cast<float>(2 * factor) : 0.0f;
  }
};
struct UpsampleGrid {
  std::int64_t n, channels;
  UpsampleAxis d, h, w;

  std::int64_t pixels() const { return d.extent * h.extent * w.extent; }
  DTRAIN_HOST_DEVICE float weight(const PoolPlace& out, std::int64_t k, std::int64_t i, std::int64_t j) const {
    return d.weight(out.plane, k) * h.weight(out.row, i) * w.weight(out.column, j);
  }
};

void upsample(const Launch&, Element, const UpsampleGrid&, const void* x, void* y);
void upsample_gradient(const Launch&, Element, const UpsampleGrid&, const void* gy, Slot gx);

template <class T, int width>
struct UpsampleBody {
  UpsampleGrid grid;
  const T* x;
  T* y;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const UpsampleAxis &d = grid.d, &h = grid.h, &w = grid.w;
    const PoolPlace at =
        pool_place<width>(i, d.extent * d.factor, h.extent * h.factor, w.extent * w.factor, grid.channels);
    const T* sample = x + at.sample * d.extent * h.extent * w.extent * grid.channels + at.channel;
    Floats<width> sum{};
    const auto see = [&](std::int64_t p, std::int64_t r, std::int64_t c) {
      const float weight = grid.weight(at, p, r, c);
      const Floats<width> v = load_floats<width>(sample + ((p * h.extent + r) * w.extent + c) * grid.channels);
      for (int j = 0; j < width; ++j) sum.v[j] += v.v[j] * weight;
    };
    for_box(d.read_by(at.plane), h.read_by(at.row), w.read_by(at.column), see);
    store_floats<width>(y + i * width, sum);
  }
};

template <class T, int width>
struct UpsampleGradientBody {
  UpsampleGrid grid;
  const T* gy;
  Slot gx;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const UpsampleAxis &d = grid.d, &h = grid.h, &w = grid.w;
    const PoolPlace at = pool_place<width>(i, d.extent, h.extent, w.extent, grid.channels);
    const std::int64_t rows = h.extent * h.factor, columns = w.extent * w.factor;
    const T* sample = gy + at.sample * d.extent * d.factor * rows * columns * grid.channels + at.channel;
    Floats<width> sum{};
    const auto see = [&](std::int64_t p, std::int64_t r, std::int64_t c) {
      const float weight = grid.weight({at.sample, p, r, c, at.channel}, at.plane, at.row, at.column);
      const Floats<width> g = load_floats<width>(sample + ((p * rows + r) * columns + c) * grid.channels);
      for (int j = 0; j < width; ++j) sum.v[j] += g.v[j] * weight;
    };
    for_box(d.readers_of(at.plane), h.readers_of(at.row), w.readers_of(at.column), see);
    write_slot<width, T>(gx, i * width, sum);
  }
};

}  // namespace dtrain::cuda
