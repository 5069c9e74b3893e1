#include "io/augment/erase.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "io/augment/draws.hpp"

namespace dtrain::io {
namespace {

constexpr std::uint32_t tries = 10;
constexpr std::uint32_t first_value = 1 + tries;  // block of the draws of values

}  // namespace

Rectangle draw_rectangle(const RandomErasing& erasing, RandomKey key, std::uint64_t position, std::uint32_t sub,
                         int height, int width) {
  if (unit(draw4(key, position, sub, 0).v[0]) >= erasing.probability) return {};
  // torchvision's rule: up to ten tries to find a rectangle that is smaller than the image.
  for (std::uint32_t attempt = 0; attempt < tries; ++attempt) {
    const Random4 r = draw4(key, position, sub, 1 + attempt);
    const double area = static_cast<double>(height) * width * between(r.v[0], erasing.scale[0], erasing.scale[1]);
    const double ratio = std::exp(between(r.v[1], std::log(erasing.ratio[0]), std::log(erasing.ratio[1])));
    const double high = std::nearbyint(std::sqrt(area * ratio)), wide = std::nearbyint(std::sqrt(area / ratio));
    if (high >= height || wide >= width) continue;
    const int h = static_cast<int>(high), w = static_cast<int>(wide);
    return {static_cast<int>(whole(r.v[2], width - w + 1)), static_cast<int>(whole(r.v[3], height - h + 1)), w, h};
  }
  return {};
}

void erase(const RandomErasing& erasing, RandomKey key, std::uint64_t position, std::uint32_t sub, const Rectangle& at,
           int width, int channels, float* image) {
  const int count = at.width * channels;
  for (int y = 0; y < at.height; ++y) {
    float* const row = image + (static_cast<std::ptrdiff_t>(at.top + y) * width + at.left) * channels;
    if (erasing.value != RandomErasing::random) {
      std::fill_n(row, count, static_cast<float>(erasing.value));
      continue;
    }
    for (int i = 0; i < count; i += 2) {
      const auto block = static_cast<std::uint32_t>((y * count + i) / 2);
      const Random4 r = draw4(key, position, sub, first_value + block);
      row[i] = static_cast<float>(normal(r.v[0], r.v[1]));
      if (i + 1 < count) row[i + 1] = static_cast<float>(normal(r.v[2], r.v[3]));
    }
  }
}

}  // namespace dtrain::io
