// How bytes of a data set become the model's input on a device: the constants of a set, and one micro batch of it.
// Plain data that owns nothing; all pointers are device memory unless said otherwise.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/input/augment_math.hpp"
#include "runtime/tensor/dtype.hpp"

namespace dtrain {

/// What one position of the stream drew. Worked out on the host, in double; the pixels follow on the device.
struct ImageDraw {
  AffineMap map{1, 0, 0, 0, 1, 0};
  ColorChange color{1, 1, 1, 0};
  std::uint32_t recolored = 0;  // `color` changes something
  std::uint32_t exact = 1;      // `map` is of whole pixels and mirrors: nothing is interpolated
};

/// Outlives the calls that are given it. Stored samples of bytes, [C, H, W] or [H, W, C]. A sample that is no image has
/// height 1 and its values as the width of one channel.
struct ImageFormat {
  std::int32_t stored_height = 1, stored_width = 1, height = 1, width = 1, channels = 1;
  bool stored_channels_last = false;
  /// 256 values a channel: what a stored byte becomes where no colour changes and nothing is interpolated.
  const float* table = nullptr;
  /// One a channel: value * scale + offset, for what was interpolated or changed in colour.
  const float* scale = nullptr;
  const float* offset = nullptr;
  DTRAIN_HOST_DEVICE std::size_t sample_bytes() const noexcept {
    return static_cast<std::size_t>(channels) * static_cast<std::size_t>(stored_height) *
           static_cast<std::size_t>(stored_width);
  }
};

struct ImageBatch {
  static constexpr std::uint64_t none = ~std::uint64_t{0};
  const std::uint8_t* stored = nullptr;  // samples one behind the other
  const std::uint64_t* rows = nullptr;   // [n]: which of them, `none` gives zeros; null: 0, 1, ...
  const ImageDraw* draws = nullptr;      // [n]; null: as stored (evaluation)
  std::int64_t n = 0;
  void* out = nullptr;          // [n, H, W, C]
  DType out_type = DType::f32;  // or bf16
};

}  // namespace dtrain
