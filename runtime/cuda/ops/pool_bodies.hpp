// Bodies of pooling: a thread has `width` channels of a window, or of a pixel in backward, so that each gradient is
// rounded and written once however many windows overlap there. Structs of arguments; see grid.hpp.
#pragma once

#include "runtime/cuda/vector.hpp"

namespace dtrain::cuda {

/// Element `i` of [n, planes, rows, columns, groups of channels].
struct PoolPlace {
  std::int64_t sample, plane, row, column, channel;
};
template <int width>
DTRAIN_HOST_DEVICE inline PoolPlace pool_place(std::int64_t i, std::int64_t planes, std::int64_t rows,
                                               std::int64_t columns, std::int64_t channels) {
  const Split in_pixel = split(i, channels / width), in_row = split(in_pixel.quotient, columns),
              in_plane = split(in_row.quotient, rows);
  const Split in_sample = planes == 1 ? Split{in_plane.quotient, 0} : split(in_plane.quotient, planes);
  return {in_sample.quotient, in_sample.rest, in_plane.rest, in_row.rest, in_pixel.rest * width};
}
/// Of a pixel, and of a window.
template <int width>
DTRAIN_HOST_DEVICE inline PoolPlace pixel_place(const WindowGrid& grid, std::int64_t i) {
  return pool_place<width>(i, grid.d.extent, grid.h.extent, grid.w.extent, grid.channels);
}
template <int width>
DTRAIN_HOST_DEVICE inline PoolPlace window_place(const WindowGrid& grid, std::int64_t i) {
  return pool_place<width>(i, grid.d.count, grid.h.count, grid.w.count, grid.channels);
}

/// f(plane, row, column) for each of a box, in this order.
template <class F>
DTRAIN_HOST_DEVICE inline void for_box(PixelRange planes, PixelRange rows, PixelRange columns, const F& f) {
  for (std::int64_t p = planes.begin; p < planes.end; ++p)
    for (std::int64_t r = rows.begin; r < rows.end; ++r)
      for (std::int64_t c = columns.begin; c < columns.end; ++c) f(p, r, c);
}
/// The first channel of a pixel, or of a window, counted in elements from that of its sample's first.
DTRAIN_HOST_DEVICE inline std::int64_t pixel_at(const WindowGrid& grid, std::int64_t p, std::int64_t r,
                                                std::int64_t c) {
  return ((p * grid.h.extent + r) * grid.w.extent + c) * grid.channels;
}
DTRAIN_HOST_DEVICE inline std::int64_t window_at(const WindowGrid& grid, std::int64_t o, std::int64_t p,
                                                 std::int64_t q) {
  return ((o * grid.h.count + p) * grid.w.count + q) * grid.channels;
}

/// Runs body.run(i) for i < count.
template <class F>
struct ForCount {
  static constexpr int threads = block_threads;
  using Shared = Nothing;
  std::int64_t count;
  F f;
  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared&) const {
    for (std::int64_t i = t.block() * threads + t.index(); i < count; i += t.blocks() * threads) f.run(i);
  }
};

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

// ---- whole images --------------------------------------------------------------------------------------------------

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

}  // namespace dtrain::cuda
