// Stored images -> augmented, normalized floats in the model's memory order; internal to io/.
// An Augmenter is immutable after construction and may be used from any thread; what it does to a sample depends on the
// seed and the position in the stream alone.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "io/augment/erase.hpp"
#include "io/dataset/loader.hpp"
#include "runtime/input/augment_math.hpp"

namespace dtrain::io {

/// Of brightness (0), contrast, saturation and hue (3).
using ColorOrder = std::array<std::uint8_t, 4>;
/// `pixels`: r, g, b, from 0 to `most`.
void recolor_in_order(const ColorChange&, const ColorOrder&, float most, std::span<float> pixels);

class Augmenter {
 public:
  /// Throws ConfigError where an augmentation does not suit the images, ShapeError where these do not fit the input.
  Augmenter(const Dataset&, std::size_t port, const Shape& input, const Normalize&, StoredLayout,
            std::span<const Augmentation>, std::uint64_t seed);

  /// What one position of the stream drew.
  struct Draw {
    double xx = 1, xy = 0, x0 = 0, yx = 0, yy = 1, y0 = 0;  // as AffineMap
    ColorChange color{1, 1, 1, 0};
    bool recolored() const noexcept;
    ColorOrder order{0, 1, 2, 3};
    Rectangle erased;
    /// Whole pixels and mirrors only: nothing is interpolated.
    bool exact() const noexcept;
    AffineMap map() const noexcept;
  };
  Draw draw(std::uint64_t position) const;

  /// Fills `out` (H * W * C floats, channels last). Returns the element of the first stored value that is not finite,
  /// or -1.
  std::int64_t operator()(const std::byte* stored, std::uint64_t position, float* out) const;

 private:
  template <class T>
  void copy(const Draw&, const StoredImage<T>&, float* out) const;
  template <class T, int fixed_channels>
  void copy_pixels(const Draw&, const StoredImage<T>&, float* out) const;
  template <class T, int fixed_channels>
  void resample(const Draw&, const StoredImage<T>&, bool raw, float* out) const;
  void recolor(const Draw&, float* out) const;
  void rand_augment(const RandAugment&, std::uint64_t position, float* out) const;
  void normalize(float* out) const;
  float normalized(int channel, float value) const {
    const auto c = static_cast<std::size_t>(channel);
    return value * scale32_[c] + offset32_[c];
  }

  std::vector<Augmentation> list_;
  std::optional<RandAugment> rand_augment_;
  std::optional<RandomErasing> erasing_;
  RandomKey key_;
  StoredType type_;
  int height_ = 0, width_ = 0, channels_ = 0;  // of the result
  int stored_height_ = 0, stored_width_ = 0;
  bool stored_channels_last_ = false, same_for_all_ = true;
  float most_ = 255;                    // the largest stored value, for colours
  std::vector<double> scale_, offset_;  // a channel
  std::vector<float> scale32_, offset32_;
  std::vector<float> table_;  // 256 entries a channel, for bytes
};

}  // namespace dtrain::io
