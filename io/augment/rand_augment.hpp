// RandAugment's operations on images of bytes, as torchvision defines them, and which of them a position draws.
// Pure functions that own nothing, for any thread; an image's bytes are the caller's.
#pragma once

#include <cstdint>
#include <vector>

#include "io/augment/kinds.hpp"
#include "runtime/random/rng.hpp"

namespace dtrain::io {

struct ByteImage {
  int height = 0, width = 0, channels = 0;  // 1 or 3 channels
  std::vector<std::uint8_t> values;         // [height, width, channels]
};

/// In torchvision's order.

enum class ImageOperation : std::uint8_t {
  identity,
  shear_x,
  shear_y,
  translate_x,
  translate_y,
  rotate,
  brightness,
  color,
  contrast,
  sharpness,
  posterize,
  solarize,
  auto_contrast,
  equalize
};
inline constexpr int image_operations = 14, most_magnitude = 30;

/// What one operation of a position drew.
struct OperationDraw {
  ImageOperation operation = ImageOperation::identity;
  bool negative = false;  // for what has a direction
};
OperationDraw draw_operation(RandomKey, std::uint64_t position, std::uint32_t sub, std::uint32_t number);

/// The strength that a magnitude of 0 ... 30 means: pixels, degrees, a change of a factor, bits or a threshold.
double strength_of(OperationDraw, std::int64_t magnitude, int height, int width);
void apply(ImageOperation, double strength, ByteImage&);

/// All operations of a position, one after the other.
void rand_augment(const RandAugment&, RandomKey, std::uint64_t position, std::uint32_t sub, ByteImage&);

}  // namespace dtrain::io
