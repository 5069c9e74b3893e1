// Where pooling windows lie along one axis, and which of them see a pixel.
// Plain data, on any thread and device.
#pragma once

#include <cstdint>

#include "runtime/random/index_math.hpp"

namespace dtrain {

struct PixelRange {
  std::int64_t begin, end;
};

struct Windows {
  std::int64_t extent, size, stride, padding, count;

  Windows(std::int64_t extent_in, std::int64_t size_in, std::int64_t stride_in, std::int64_t padding_in)
      : extent(extent_in),
        size(size_in),
        stride(stride_in),
        padding(padding_in),
        count((extent_in + 2 * padding_in - size_in) / stride_in + 1) {}

  /// Where window w starts; negative in the padding.
  DTRAIN_HOST_DEVICE std::int64_t start(std::int64_t w) const { return w * stride - padding; }
  /// The pixels that window w sees.
  DTRAIN_HOST_DEVICE PixelRange pixels(std::int64_t w) const {
    const std::int64_t begin = start(w), end = begin + size;
    return {begin < 0 ? 0 : begin, end < extent ? end : extent};
  }
  /// The windows that see pixel i.
  DTRAIN_HOST_DEVICE PixelRange seeing(std::int64_t i) const {
    const std::int64_t after = i + padding - size, end = split(i + padding, stride).quotient + 1;
    return {after < 0 ? 0 : split(after, stride).quotient + 1, end < count ? end : count};
  }
};

/// The axes of a pool over images that lie channels last.
struct WindowGrid {
  std::int64_t n, channels;
  Windows h, w;

  /// `positions`, `size`, `stride`, `padding`: of two axes.
  template <class Axes>
  WindowGrid(std::int64_t samples, std::int64_t channels_in, const Axes& positions, const Axes& size,
             const Axes& stride, const Axes& padding)
      : n(samples),
        channels(channels_in),
        h(positions[0], size[0], stride[0], padding[0]),
        w(positions[1], size[1], stride[1], padding[1]) {}
};

}  // namespace dtrain
