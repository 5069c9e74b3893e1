// Average pooling: what starts its kernels, and their bodies. Structs of arguments; see grid.hpp.
// Pointers are device memory that the caller owns until the stream was there.
#pragma once

#include "runtime/cuda/ops/window_loops.hpp"

namespace dtrain::cuda {

void average_pool(const Launch&, Element, const WindowGrid&, bool count_padding, const void* x, void* y);
void average_pool_gradient(const Launch&, Element, const WindowGrid&, bool count_padding, const void* gy, Slot gx);

/// What a pixel counts in the mean of window (o, p, q).
DTRAIN_HOST_DEVICE inline float share_of(const WindowGrid& grid, bool count_padding, std::int64_t o, std::int64_t p,
                                         std::int64_t q) {
  const PixelRange planes = grid.d.pixels(o), rows = grid.h.pixels(p), columns = grid.w.pixels(q);
  const std::int64_t there = (planes.end - planes.begin) * (rows.end - rows.begin) * (columns.end - columns.begin);
  return 1.0f / static_cast<float>(count_padding ? grid.d.size * grid.h.size * grid.w.size : there);
}

template <class T, int width>
struct AveragePoolBody {
  WindowGrid grid;
  bool count_padding;
  const T* x;
  T* y;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const PoolPlace at = window_place<width>(grid, i);
    const T* sample = x + at.sample * grid.pixels() * grid.channels + at.channel;
    const float share = share_of(grid, count_padding, at.plane, at.row, at.column);
    Floats<width> sum{};
    const auto see = [&](std::int64_t p, std::int64_t r, std::int64_t c) {
      const Floats<width> v = load_floats<width>(sample + pixel_at(grid, p, r, c));
      for (int j = 0; j < width; ++j) sum.v[j] += v.v[j] * share;
    };
    for_box(grid.d.pixels(at.plane), grid.h.pixels(at.row), grid.w.pixels(at.column), see);
    store_floats<width>(y + i * width, sum);
  }
};

template <class T, int width>
struct AveragePoolGradientBody {
  WindowGrid grid;
  bool count_padding;
  const T* gy;
  Slot gx;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const PoolPlace at = pixel_place<width>(grid, i);
    const T* sample = gy + at.sample * grid.windows() * grid.channels + at.channel;
    Floats<width> sum{};
    const auto see = [&](std::int64_t o, std::int64_t p, std::int64_t q) {
      const float share = share_of(grid, count_padding, o, p, q);
      const Floats<width> g = load_floats<width>(sample + window_at(grid, o, p, q));
      for (int j = 0; j < width; ++j) sum.v[j] += g.v[j] * share;
    };
    for_box(grid.d.seeing(at.plane), grid.h.seeing(at.row), grid.w.seeing(at.column), see);
    write_slot<width, T>(gx, i * width, sum);
  }
};

}  // namespace dtrain::cuda
