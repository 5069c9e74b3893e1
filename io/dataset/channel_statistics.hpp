// Mean and standard deviation of each channel of stored samples, for data.normalize.
// A ChannelStatistics belongs to one thread; threads keep their own, and merge.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/dataset/dataset.hpp"

namespace dtrain::io {

class ChannelStatistics {
 public:
  /// Of samples of this shape: [C, H, W] or [H, W, C] where `channels_last`; one entry a feature for [features] up to
  /// max_features; else one for all.
  ChannelStatistics(StoredType, std::span<const std::uint64_t> sample, bool channels_last);
  static constexpr std::uint64_t max_features = 64;
  /// Of rows of so many channels with so many values each.
  ChannelStatistics(StoredType, std::size_t channels, std::size_t pixels, bool channels_last);
  /// Images with their channels last? By the extents: 1, 3 or 4 channels are first or last.
  static bool last_by_shape(std::span<const std::uint64_t> sample);

  void add(const std::byte* rows, std::uint64_t count);
  /// The same bits where the same parts are merged in the same order.
  void merge(const ChannelStatistics&);
  /// All that was added, as numbers: merge() takes them up elsewhere.
  std::vector<double> moments() const;
  static std::size_t moments_of(std::size_t channels) noexcept { return 1 + 2 * channels; }
  void merge(std::span<const double> moments);
  /// "{scale: 0.00392156862745098, mean: [0.491, 0.482, 0.447], standard_deviation: [0.247, 0.243, 0.262]}": what
  /// data.normalize may say. Empty where nothing was added, or a value was not finite.
  std::string normalize() const;
  double scale() const noexcept { return type_ == StoredType::u8 ? 1.0 / 255 : 1.0; }
  double count() const noexcept { return count_; }  // values a channel
  std::vector<double> mean() const;                 // of value * scale
  std::vector<double> standard_deviation() const;   // of value * scale

 private:
  void merge(double count, std::size_t channel, double mean, double around);

  StoredType type_;
  std::size_t channels_ = 1, pixels_ = 1;
  bool channels_last_ = false;
  double count_ = 0;
  std::vector<double> mean_, around_;  // a channel: of stored values, and the sum of squares around it
};

}  // namespace dtrain::io
