// One pixel of an augmented image, shared by every device: looked up in the stored image through an affine map,
// bilinear, then changed in colour. Free functions that own nothing; values are in stored units until the end.
#pragma once

#include <cstddef>

#include "runtime/random/rng.hpp"

namespace dtrain {

/// A stored image; steps are counted in elements.
template <class T>
struct StoredImage {
  const T* data;
  int height, width;
  std::ptrdiff_t row, column, channel;
};

/// Where a pixel of the result lies in the stored image. Pixel (x, y) covers [x, x + 1) x [y, y + 1) in both.
struct AffineMap {
  float xx, xy, x0;
  float yx, yy, y0;
};

struct ImagePoint {
  float x, y;
};
/// The source of the middle of pixel (x, y).
DTRAIN_HOST_DEVICE inline ImagePoint source_of(const AffineMap& m, int x, int y) {
  const float px = static_cast<float>(x) + 0.5f, py = static_cast<float>(y) + 0.5f;
  return {m.xx * px + m.xy * py + m.x0, m.yx * px + m.yy * py + m.y0};
}

DTRAIN_HOST_DEVICE inline int clamped(int i, int size) {
  return i < 0 ? 0 : i >= size ? size - 1 : i;
}

/// The four stored pixels around a point, and how much of the right and lower ones counts. Beyond the middle of the
/// outermost pixels these are repeated; outside the image there is nothing, which is 0 (Pillow's rule).
struct Neighbours {
  std::ptrdiff_t at[4];  // upper left, upper right, lower left, lower right
  float right, lower;
  bool inside;
};
template <class T>
DTRAIN_HOST_DEVICE inline Neighbours neighbours(const StoredImage<T>& image, ImagePoint p) {
  Neighbours n{};
  n.inside = p.x >= 0 && p.y >= 0 && p.x < static_cast<float>(image.width) && p.y < static_cast<float>(image.height);
  if (!n.inside) return n;
  // Rounded down by truncation, as points inside are not negative: floor() may be a call.
  const float right = p.x + 0.5f, below = p.y + 0.5f;
  const int x = static_cast<int>(right) - 1, y = static_cast<int>(below) - 1;
  n.right = p.x - 0.5f - static_cast<float>(x);
  n.lower = p.y - 0.5f - static_cast<float>(y);
  const std::ptrdiff_t c0 = clamped(x, image.width) * image.column, c1 = clamped(x + 1, image.width) * image.column;
  const std::ptrdiff_t r0 = clamped(y, image.height) * image.row, r1 = clamped(y + 1, image.height) * image.row;
  n.at[0] = r0 + c0;
  n.at[1] = r0 + c1;
  n.at[2] = r1 + c0;
  n.at[3] = r1 + c1;
  return n;
}
template <class T>
DTRAIN_HOST_DEVICE inline float bilinear(const StoredImage<T>& image, const Neighbours& n, int channel) {
  if (!n.inside) return 0.0f;
  const T* from = image.data + channel * image.channel;
  const auto a = static_cast<float>(from[n.at[0]]), b = static_cast<float>(from[n.at[1]]);
  const auto c = static_cast<float>(from[n.at[2]]), d = static_cast<float>(from[n.at[3]]);
  const float upper = a + (b - a) * n.right, lower = c + (d - c) * n.right;
  return upper + (lower - upper) * n.lower;
}

// ---- colours: torchvision's formulas ------------------------------------------------------------------------------

/// What a colour jitter drew; 1, 1, 1, 0 change nothing. Applied in this order.
struct ColorChange {
  float brightness, contrast, saturation, hue;
};

DTRAIN_HOST_DEVICE inline float clamped(float v, float most) {
  return v < 0 ? 0.0f : v > most ? most : v;
}
/// Between `other` (0) and `v` (1), or beyond; kept within [0, most].
DTRAIN_HOST_DEVICE inline float blend(float v, float other, float factor, float most) {
  return clamped(factor * v + (1.0f - factor) * other, most);
}
DTRAIN_HOST_DEVICE inline float gray(float r, float g, float b) {
  return 0.2989f * r + 0.587f * g + 0.114f * b;
}
/// Turns the hue by `turn` of the circle; r, g, b in [0, most].
DTRAIN_HOST_DEVICE inline void turn_hue(float& r, float& g, float& b, float turn, float most) {
  const float high = r > g ? (r > b ? r : b) : (g > b ? g : b), low = r < g ? (r < b ? r : b) : (g < b ? g : b);
  const float span = high - low;
  if (span <= 0) return;
  const float rc = (high - r) / span, gc = (high - g) / span, bc = (high - b) / span;
  float hue = high == r ? bc - gc : high == g ? 2.0f + rc - bc : 4.0f + gc - rc;
  hue = hue / 6.0f + turn + 2.0f;  // positive: truncation rounds down
  hue = (hue - static_cast<float>(static_cast<int>(hue))) * 6.0f;
  const int sixth = static_cast<int>(hue);
  const float f = hue - static_cast<float>(sixth), saturation = span / high;
  const float p = clamped(high * (1.0f - saturation), most), q = clamped(high * (1.0f - saturation * f), most);
  const float t = clamped(high * (1.0f - saturation * (1.0f - f)), most);
  const int k = sixth % 6;
  r = k == 0 || k == 5 ? high : k == 1 ? q : k == 4 ? t : p;
  g = k == 1 || k == 2 ? high : k == 3 ? q : k == 0 ? t : p;
  b = k == 3 || k == 4 ? high : k == 5 ? q : k == 2 ? t : p;
}
/// After brightness; `mean` is that of gray over the brightened image.
DTRAIN_HOST_DEVICE inline void change_color(const ColorChange& c, float mean, float most, float& r, float& g,
                                            float& b) {
  r = blend(r, mean, c.contrast, most);
  g = blend(g, mean, c.contrast, most);
  b = blend(b, mean, c.contrast, most);
  const float y = gray(r, g, b);
  r = blend(r, y, c.saturation, most);
  g = blend(g, y, c.saturation, most);
  b = blend(b, y, c.saturation, most);
  if (c.hue != 0) turn_hue(r, g, b, c.hue, most);
}

}  // namespace dtrain
