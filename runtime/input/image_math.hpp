// One pixel of a stored sample on its way into the model, shared by every device; see image_load.hpp.
// Free functions that own nothing. A device goes over the pixels of the result: where no colour changes, one call each;
// otherwise brightened_pixel() for all of them, whose mean gray value recolored_pixel() needs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/input/augment_math.hpp"
#include "runtime/input/image_load.hpp"

namespace dtrain {

DTRAIN_HOST_DEVICE inline StoredImage<std::uint8_t> stored_image(const ImageFormat& f, const std::uint8_t* data) {
  const std::ptrdiff_t h = f.stored_height, w = f.stored_width, c = f.channels;
  if (f.stored_channels_last) return {data, f.stored_height, f.stored_width, w * c, c, 1};
  return {data, f.stored_height, f.stored_width, w, 1, h * w};
}

/// The value of channel c of pixel (x, y) of the result, for a draw that changes no colour; null: no draw.
DTRAIN_HOST_DEVICE inline float plain_pixel(const ImageFormat& f, const StoredImage<std::uint8_t>& image,
                                            const ImageDraw* d, int x, int y, int c) {
  if (d == nullptr) return f.table[c * 256 + image.data[y * image.row + x * image.column + c * image.channel]];
  if (d->exact != 0) {
    const int from_x = d->map.xx > 0 ? x + static_cast<int>(d->map.x0) : static_cast<int>(d->map.x0) - 1 - x;
    const int from_y = d->map.yy > 0 ? y + static_cast<int>(d->map.y0) : static_cast<int>(d->map.y0) - 1 - y;
    const bool inside = from_x >= 0 && from_x < image.width && from_y >= 0 && from_y < image.height;
    const int byte = inside ? image.data[from_y * image.row + from_x * image.column + c * image.channel] : 0;
    return f.table[c * 256 + byte];
  }
  return bilinear(image, neighbours(image, source_of(d->map, x, y)), c) * f.scale[c] + f.offset[c];
}

struct Rgb {
  float r, g, b;
};
/// For a draw that changes colours, which three channels have: the brightened pixel, in stored units.
DTRAIN_HOST_DEVICE inline Rgb brightened_pixel(const StoredImage<std::uint8_t>& image, const ImageDraw& d, int x,
                                               int y) {
  const Neighbours n = neighbours(image, source_of(d.map, x, y));
  return {clamped(bilinear(image, n, 0) * d.color.brightness, 255.0f),
          clamped(bilinear(image, n, 1) * d.color.brightness, 255.0f),
          clamped(bilinear(image, n, 2) * d.color.brightness, 255.0f)};
}
/// `mean`: of gray() over the brightened pixels of the image.
DTRAIN_HOST_DEVICE inline Rgb recolored_pixel(const ImageFormat& f, const ImageDraw& d, Rgb p, float mean) {
  change_color(d.color, mean, 255.0f, p.r, p.g, p.b);
  return {p.r * f.scale[0] + f.offset[0], p.g * f.scale[1] + f.offset[1], p.b * f.scale[2] + f.offset[2]};
}

}  // namespace dtrain
