// Bodies of pooling: a thread has `width` channels of a window, or of a pixel in backward, so that each gradient is
// rounded and written once however many windows overlap there. Structs of arguments; see grid.hpp.
#pragma once

#include "runtime/cuda/vector.hpp"

namespace dtrain::cuda {

/// Element `i` of [n, rows, columns, groups of channels].
struct PoolPlace {
  std::int64_t image, row, column, channel;
};
template <int width>
DTRAIN_HOST_DEVICE inline PoolPlace pool_place(std::int64_t i, std::int64_t rows, std::int64_t columns,
                                               std::int64_t channels) {
  const Split in_pixel = split(i, channels / width), in_row = split(in_pixel.quotient, columns),
              in_image = split(in_row.quotient, rows);
  return {in_image.quotient, in_image.rest, in_row.rest, in_pixel.rest * width};
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
    const PoolPlace at = pool_place<width>(i, grid.h.count, grid.w.count, grid.channels);
    const PixelRange rows = grid.h.pixels(at.row), columns = grid.w.pixels(at.column);
    const std::int64_t top = grid.h.start(at.row), left = grid.w.start(at.column);
    const T* image = x + at.image * grid.h.extent * grid.w.extent * grid.channels + at.channel;
    Floats<width> best{};
    Vector<std::uint8_t, width> index{};
    bool first = true;
    for (std::int64_t r = rows.begin; r < rows.end; ++r) {
      for (std::int64_t c = columns.begin; c < columns.end; ++c) {
        const Floats<width> v = load_floats<width>(image + (r * grid.w.extent + c) * grid.channels);
        const auto k = static_cast<std::uint8_t>((r - top) * grid.w.size + (c - left));
        for (int j = 0; j < width; ++j) {
          // NaN wins, as in PyTorch, so that it is not lost on the way to the loss.
          const bool take = first || v.v[j] > best.v[j] || v.v[j] != v.v[j];
          best.v[j] = take ? v.v[j] : best.v[j];
          index.v[j] = take ? k : index.v[j];
        }
        first = false;
      }
    }
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
    const PoolPlace at = pool_place<width>(i, grid.h.extent, grid.w.extent, grid.channels);
    const PixelRange rows = grid.h.seeing(at.row), columns = grid.w.seeing(at.column);
    Floats<width> sum{};
    for (std::int64_t p = rows.begin; p < rows.end; ++p) {
      for (std::int64_t q = columns.begin; q < columns.end; ++q) {
        const std::int64_t from = ((at.image * grid.h.count + p) * grid.w.count + q) * grid.channels + at.channel;
        const auto k =
            static_cast<std::uint8_t>((at.row - grid.h.start(p)) * grid.w.size + (at.column - grid.w.start(q)));
        const Vector<std::uint8_t, width> winner = load<width>(won + from);
        const Floats<width> g = load_floats<width>(gy + from);
        for (int j = 0; j < width; ++j) sum.v[j] += winner.v[j] == k ? g.v[j] : 0.0f;
      }
    }
    write_slot<width, T>(gx, i * width, sum);
  }
};

/// What a pixel counts in the mean of window (p, q).
DTRAIN_HOST_DEVICE inline float share_of(const WindowGrid& grid, bool count_padding, std::int64_t p, std::int64_t q) {
  const PixelRange rows = grid.h.pixels(p), columns = grid.w.pixels(q);
  const std::int64_t there = (rows.end - rows.begin) * (columns.end - columns.begin);
  return 1.0f / static_cast<float>(count_padding ? grid.h.size * grid.w.size : there);
}

template <class T, int width>
struct AveragePoolBody {
  WindowGrid grid;
  bool count_padding;
  const T* x;
  T* y;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const PoolPlace at = pool_place<width>(i, grid.h.count, grid.w.count, grid.channels);
    const PixelRange rows = grid.h.pixels(at.row), columns = grid.w.pixels(at.column);
    const T* image = x + at.image * grid.h.extent * grid.w.extent * grid.channels + at.channel;
    const float share = share_of(grid, count_padding, at.row, at.column);
    Floats<width> sum{};
    for (std::int64_t r = rows.begin; r < rows.end; ++r) {
      for (std::int64_t c = columns.begin; c < columns.end; ++c) {
        const Floats<width> v = load_floats<width>(image + (r * grid.w.extent + c) * grid.channels);
        for (int j = 0; j < width; ++j) sum.v[j] += v.v[j] * share;
      }
    }
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
    const PoolPlace at = pool_place<width>(i, grid.h.extent, grid.w.extent, grid.channels);
    const PixelRange rows = grid.h.seeing(at.row), columns = grid.w.seeing(at.column);
    Floats<width> sum{};
    for (std::int64_t p = rows.begin; p < rows.end; ++p) {
      for (std::int64_t q = columns.begin; q < columns.end; ++q) {
        const float share = share_of(grid, count_padding, p, q);
        const Floats<width> g =
            load_floats<width>(gy + ((at.image * grid.h.count + p) * grid.w.count + q) * grid.channels + at.channel);
        for (int j = 0; j < width; ++j) sum.v[j] += g.v[j] * share;
      }
    }
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
