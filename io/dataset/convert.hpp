// Stored samples -> normalized floats in the model's memory order, and how their channels lie.
// A Converter is immutable after construction and may be used from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/dataset/loader.hpp"

namespace dtrain::io {

/// Where a setting of a port stands in a configuration: "data.augment" of the only input, "data.inputs.image.augment".
std::string port_setting(const DataPort&, std::string_view setting);
/// What the model's shape of a port is called there: "model.input", "model.inputs.image", "the target label".
std::string model_name(const DataPort&);

/// How the channels of stored rows lie, for a mean and a standard deviation each; of a table, and of a short row of
/// numbers, each column is a channel. Of a ragged port a row is a position.
struct StoredChannels {
  std::size_t channels = 1, pixels = 1;  // values a channel
  bool last = false;                     // else channel by channel
  static constexpr std::int64_t most_columns = 4096;
};
StoredChannels stored_channels(const Dataset&, std::size_t port, const Shape& input, StoredLayout);

class Converter {
 public:
  /// Throws ShapeError where samples do not fit the input, ConfigError where mean or standard_deviation do not fit the
  /// channels.
  Converter(const Dataset&, std::size_t port, const Shape& input, const Normalize&,
            StoredLayout layout = StoredLayout::unknown);
  /// Floats of one sample.
  std::size_t elements() const noexcept { return channels_ * pixels_; }
  /// Returns the element (in stored order) of the first value that is not finite, or -1.
  std::int64_t operator()(const std::byte* stored, float* out) const { return convert(stored, out, pixels_); }
  /// Of a ragged port: the first `positions` of a sample, the others stay as they are.
  std::int64_t operator()(const std::byte* stored, std::int64_t positions, float* out) const {
    return convert(stored, out, pixels_ / length_ * static_cast<std::size_t>(positions));
  }

 private:
  std::int64_t convert(const std::byte* stored, float* out, std::size_t pixels) const;

  StoredType type_;
  std::size_t length_ = 1;  // positions of a sample
  std::size_t channels_ = 1, pixels_ = 1;
  bool stored_channels_last_ = false;  // else channel by channel
  bool wanted_channels_last_ = false;
  bool same_for_all_ = true;  // one scale and offset
  bool identity_ = true;
  std::vector<double> scale_, offset_;  // a channel: value * scale + offset
  std::vector<float> table_;            // 256 entries a channel, for bytes
};

}  // namespace dtrain::io
