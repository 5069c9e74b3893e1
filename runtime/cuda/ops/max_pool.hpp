// Max pooling: what starts its kernels, and their bodies. Structs of arguments; see grid.hpp.
// Pointers are device memory that the caller owns until the stream was there.
#pragma once

#include "runtime/cuda/ops/window_loops.hpp"

namespace dtrain::cuda {

/// `won` (or null): the window's element that was the largest.
void max_pool(const Launch&, Element, const WindowGrid&, const void* x, void* y, std::uint8_t* won);
void max_pool_gradient(const Launch&, Element, const WindowGrid&, const std::uint8_t* won, const void* gy, Slot gx);

template <class T, int width>
struct MaxPoolBody {
  WindowGrid grid;
  const T* x;
  T* y;
  std::uint8_t* won;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const PoolPlace at = window_place<width>(grid, i);
    const std::int64_t front = grid.d.start(at.plane), top = grid.h.start(at.row), left = grid.w.start(at.column);
    const T* sample = x + at.sample * grid.pixels() * grid.channels + at.channel;
    Floats<width> best{};
    Vector<std::uint8_t, width> index{};
    bool first = true;
    const auto see = [&](std::int64_t p, std::int64_t r, std::int64_t c) {
      const Floats<width> v = load_floats<width>(sample + pixel_at(grid, p, r, c));
      const auto k = static_cast<std::uint8_t>(((p - front) * grid.h.size + (r - top)) * grid.w.size + (c - left));
      for (int j = 0; j < width; ++j) {
        // NaN wins, as in PyTorch, so that it is not lost on the way to the loss.
        const bool take = first || v.v[j] > best.v[j] || v.v[j] != v.v[j];
        best.v[j] = take ? v.v[j] : best.v[j];
        index.v[j] = take ? k : index.v[j];
      }
      first = false;
    };
    for_box(grid.d.pixels(at.plane), grid.h.pixels(at.row), grid.w.pixels(at.column), see);
    store_floats<width>(y + i * width, best);
    if (won != nullptr) store<width>(won + i * width, index);
  }
};

template <class T, int width>
struct MaxPoolGradientBody {
  WindowGrid grid;
  const std::uint8_t* won;
  const T* gy;
  Slot gx;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const PoolPlace at = pixel_place<width>(grid, i);
    const std::int64_t sample = at.sample * grid.windows() * grid.channels + at.channel;
    Floats<width> sum{};
    const auto see = [&](std::int64_t o, std::int64_t p, std::int64_t q) {
      const std::int64_t from = sample + window_at(grid, o, p, q);
      const std::int64_t plane = at.plane - grid.d.start(o), row = at.row - grid.h.start(p);
      const auto k =
          static_cast<std::uint8_t>((plane * grid.h.size + row) * grid.w.size + (at.column - grid.w.start(q)));
      const Vector<std::uint8_t, width> winner = load<width>(won + from);
      const Floats<width> g = load_floats<width>(gy + from);
      for (int j = 0; j < width; ++j) sum.v[j] += winner.v[j] == k ? g.v[j] : 0.0f;
    };
    for_box(grid.d.seeing(at.plane), grid.h.seeing(at.row), grid.w.seeing(at.column), see);
    write_slot<width, T>(gx, i * width, sum);
  }
};

}  // namespace dtrain::cuda
