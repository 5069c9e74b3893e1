#include "io/augment/rand_augment.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <numbers>

#include "io/augment/draws.hpp"
#include "runtime/input/augment_math.hpp"

namespace dtrain::io {
namespace {

using Table = std::array<std::uint8_t, 256>;

/// torchvision cuts fractions off.
std::uint8_t byte_of(float value) {
  return static_cast<std::uint8_t>(clamped(value, 255.0f));
}
/// By `change` away from the other value, or nearer to it.
std::uint8_t blended(std::uint8_t value, float other, double change) {
  return byte_of(static_cast<float>(value) * static_cast<float>(1 + change) + other * static_cast<float>(-change));
}
float gray_of(const std::uint8_t* p) {
  return std::floor(gray(static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2])));
}

std::size_t pixels_of(const ByteImage& image) {
  return static_cast<std::size_t>(image.height) * static_cast<std::size_t>(image.width);
}

/// The nearest pixel of the source, 0 outside.
void move(const AffineMap& map, ByteImage& image) {
  const std::vector<std::uint8_t> from = image.values;
  const auto channels = static_cast<std::size_t>(image.channels);
  std::uint8_t* to = image.values.data();
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x, to += channels) {
      const ImagePoint p = source_of(map, x, y);
      const bool inside =
          p.x >= 0 && p.y >= 0 && p.x < static_cast<float>(image.width) && p.y < static_cast<float>(image.height);
      if (!inside) {
        std::fill_n(to, channels, std::uint8_t{0});
        continue;
      }
      const auto row = static_cast<std::size_t>(p.y), column = static_cast<std::size_t>(p.x);
      std::copy_n(from.data() + (row * static_cast<std::size_t>(image.width) + column) * channels, channels, to);
    }
  }
}

/// About the centre, counter-clockwise where the angle is positive.
AffineMap rotation(double degrees, const ByteImage& image) {
  const double angle = degrees * std::numbers::pi / 180, c = std::cos(angle), s = std::sin(angle);
  const double x = image.width / 2.0, y = image.height / 2.0;
  return {static_cast<float>(c), static_cast<float>(-s), static_cast<float>(x - c * x + s * y),
          static_cast<float>(s), static_cast<float>(c),  static_cast<float>(y - s * x - c * y)};
}

void look_up(const Table& table, ByteImage& image) {
  for (std::uint8_t& v : image.values) v = table[v];
}
template <class F>
void map_values(const F& f, ByteImage& image) {
  Table table;
  for (std::size_t v = 0; v < table.size(); ++v) table[v] = f(static_cast<std::uint8_t>(v));
  look_up(table, image);
}
/// f(channel's counts of each value) is a table for the channel.
template <class F>
void map_channels(const F& f, ByteImage& image) {
  const auto channels = static_cast<std::size_t>(image.channels);
  for (std::size_t c = 0; c < channels; ++c) {
    std::array<std::int64_t, 256> counts{};
    for (std::size_t i = c; i < image.values.size(); i += channels) ++counts[image.values[i]];
    const Table table = f(counts);
    for (std::size_t i = c; i < image.values.size(); i += channels) image.values[i] = table[image.values[i]];
  }
}

void change_saturation(double change, ByteImage& image) {
  if (image.channels != 3) return;
  for (std::size_t i = 0; i < image.values.size(); i += 3) {
    std::uint8_t* const p = image.values.data() + i;
    const float y = gray_of(p);
    for (int c = 0; c < 3; ++c) p[c] = blended(p[c], y, change);
  }
}

void change_contrast(double change, ByteImage& image) {
  double sum = 0;
  for (std::size_t i = 0; i < image.values.size(); i += static_cast<std::size_t>(image.channels))
    sum += image.channels == 3 ? static_cast<double>(gray_of(image.values.data() + i)) : image.values[i];
  const auto mean = static_cast<float>(sum / static_cast<double>(pixels_of(image)));
  map_values([=](std::uint8_t v) { return blended(v, mean, change); }, image);
}

/// Between the image and a smoothed one, but for its edge.
void sharpen(double change, ByteImage& image) {
  if (image.height <= 2 || image.width <= 2) return;
  const std::vector<std::uint8_t> from = image.values;
  const auto channels = static_cast<std::size_t>(image.channels);
  const std::size_t row = static_cast<std::size_t>(image.width) * channels;
  for (std::size_t y = 1; y + 1 < static_cast<std::size_t>(image.height); ++y) {
    for (std::size_t i = y * row + channels; i < (y + 1) * row - channels; ++i) {
      int sum = 4 * from[i];  // the middle counts 5 times
      for (const std::size_t line : {i - row, i, i + row})
        sum += from[line - channels] + from[line] + from[line + channels];
      const float value = from[i], smooth = std::nearbyint(static_cast<float>(sum) / 13.0f);
      image.values[i] = byte_of(value + (smooth - value) * static_cast<float>(-change));
    }
  }
}

void stretch_contrast(ByteImage& image) {
  map_channels(
      [](const auto& counts) {
        std::size_t least = 0, most = 255;
        while (least < 255 && counts[least] == 0) ++least;
        while (most > 0 && counts[most] == 0) --most;
        Table table;
        const float span = static_cast<float>(most - least) * (1.0f / 255.0f);
        for (std::size_t v = 0; v < table.size(); ++v)
          table[v] = most == least ? static_cast<std::uint8_t>(v)
                                   : byte_of((static_cast<float>(v) - static_cast<float>(least)) / span);
        return table;
      },
      image);
}

void equalize(ByteImage& image) {
  const auto pixels = static_cast<std::int64_t>(pixels_of(image));
  map_channels(
      [pixels](const auto& counts) {
        std::size_t most = 255;
        while (most > 0 && counts[most] == 0) --most;
        const std::int64_t step = (pixels - counts[most]) / 255;
        Table table;
        std::int64_t before = 0;
        for (std::size_t v = 0; v < table.size(); before += counts[v], ++v)
          table[v] = step == 0
                         ? static_cast<std::uint8_t>(v)
                         : static_cast<std::uint8_t>(std::clamp<std::int64_t>((before + step / 2) / step, 0, 255));
        return table;
      },
      image);
}

}  // namespace

OperationDraw draw_operation(RandomKey key, std::uint64_t position, std::uint32_t sub, std::uint32_t number) {
  const Random4 r = draw4(key, position, sub, number);
  return {static_cast<ImageOperation>(whole(r.v[0], image_operations)), unit(r.v[1]) < 0.5};
}

double strength_of(OperationDraw draw, std::int64_t magnitude, int height, int width) {
  const double part = static_cast<double>(magnitude) / most_magnitude, sign = draw.negative ? -1 : 1;
  switch (draw.operation) {
    case ImageOperation::shear_x:
    case ImageOperation::shear_y:
      return sign * 0.3 * part;
    // A part of the size that comes from images of 331 pixels, in the paper's code 150 of them.
    case ImageOperation::translate_x:
      return sign * std::floor(150.0 / 331 * width * part);
    case ImageOperation::translate_y:
      return sign * std::floor(150.0 / 331 * height * part);
    case ImageOperation::rotate:
      return sign * 30 * part;
    case ImageOperation::brightness:
    case ImageOperation::color:
    case ImageOperation::contrast:
    case ImageOperation::sharpness:
      return sign * 0.9 * part;
    case ImageOperation::posterize:
      return std::nearbyint(8 - 4 * part);
    case ImageOperation::solarize:
      return 255 * (1 - part);
    case ImageOperation::identity:
    case ImageOperation::auto_contrast:
    case ImageOperation::equalize:
      break;
  }
  return 0;
}

void apply(ImageOperation operation, double strength, ByteImage& image) {
  // torchvision's magnitudes are float32, from which it goes on in double.
  const auto s = static_cast<float>(strength), factor = static_cast<float>(1 + static_cast<double>(s));
  switch (operation) {
    case ImageOperation::identity:
      return;
    case ImageOperation::shear_x:
      return move({1, s, 0, 0, 1, 0}, image);
    case ImageOperation::shear_y:
      return move({1, 0, 0, s, 1, 0}, image);
    case ImageOperation::translate_x:
      return move({1, 0, -s, 0, 1, 0}, image);
    case ImageOperation::translate_y:
      return move({1, 0, 0, 0, 1, -s}, image);
    case ImageOperation::rotate:
      return move(rotation(strength, image), image);
    case ImageOperation::brightness:
      return map_values([=](std::uint8_t v) { return byte_of(static_cast<float>(v) * factor); }, image);
    case ImageOperation::color:
      return change_saturation(s, image);
    case ImageOperation::contrast:
      return change_contrast(s, image);
    case ImageOperation::sharpness:
      return sharpen(s, image);
    case ImageOperation::posterize:
      return map_values([bits = static_cast<int>(strength)](
                            std::uint8_t v) { return static_cast<std::uint8_t>(v & (0xff00 >> bits)); },
                        image);
    case ImageOperation::solarize:
      return map_values(
          [s](std::uint8_t v) { return static_cast<float>(v) >= s ? static_cast<std::uint8_t>(255 - v) : v; }, image);
    case ImageOperation::auto_contrast:
      return stretch_contrast(image);
    case ImageOperation::equalize:
      return equalize(image);
  }
}

void rand_augment(const RandAugment& settings, RandomKey key, std::uint64_t position, std::uint32_t sub,
                  ByteImage& image) {
  for (std::int64_t i = 0; i < settings.operations; ++i) {
    const OperationDraw draw = draw_operation(key, position, sub, static_cast<std::uint32_t>(i));
    apply(draw.operation, strength_of(draw, settings.magnitude, image.height, image.width), image);
  }
}

}  // namespace dtrain::io
