// What pools and upsampling share: a thread has `width` channels of a window, or of a pixel in backward, so that each
// gradient is rounded and written once however many windows overlap there. Templates that own nothing.
#pragma once

#include "runtime/cuda/vector.hpp"
#include "runtime/random/windows.hpp"

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

}  // namespace dtrain::cuda
