// Stored samples -> normalized floats in the model's memory order; internal to io/.
// A Converter is immutable after construction and may be used from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "io/dataset/loader.hpp"

namespace dtrain::io {

class Converter {
 public:
  /// Throws ShapeError where samples do not fit the input, ConfigError where mean or standard_deviation do not fit the
  /// channels.
  Converter(const Dataset&, const Shape& input, const Normalize&);
  /// Floats of one sample.
  std::size_t elements() const noexcept { return channels_ * pixels_; }
  /// Returns the element (in stored order) of the first value that is not finite, or -1.
  std::int64_t operator()(const std::byte* stored, float* out) const;

 private:
  StoredType type_;
  std::size_t channels_ = 1, pixels_ = 1;
  bool stored_channels_last_ = false;  // else channel by channel
  bool wanted_channels_last_ = false;
  bool same_for_all_ = true;  // one scale and offset
  bool identity_ = true;
  std::vector<double> scale_, offset_;  // a channel: value * scale + offset
  std::vector<float> table_;            // 256 entries a channel, for bytes
};

}  // namespace dtrain::io
