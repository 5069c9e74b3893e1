// With what a device turns a set's stored bytes into the model's input by itself: the constants, and where a batch of
// bytes has what.
// Plain data and pure functions; for any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "io/dataset/config.hpp"
#include "io/dataset/dataset.hpp"
#include "runtime/input/image_load.hpp"

namespace dtrain::io {

/// On the host: the pointers of `format` are not set.
struct HostImageFormat {
  ImageFormat format;
  std::vector<float> table, scale, offset;
};
/// Nothing where only the host can convert these samples: they are no bytes, rows differ in length, or each feature has
/// a scale of its own.
/// Throws as the loader would where they do not fit the input.
std::optional<HostImageFormat> image_format(const Dataset&, std::size_t port, const Shape& input, const Normalize&,
                                            StoredLayout layout = StoredLayout::unknown);

/// What a loader's batches carry of the samples.
enum class Carry : std::uint8_t {
  floats,  // the model's input
  bytes,   // as they are stored, for a device to convert
  rows,    // only which they are: the device has them all
};

/// Offsets into the raw part of a port (BatchLayout::raw_in), each aligned to 256 bytes.
struct RawLayout {
  std::size_t rows = 0;    // u64 [m]: sample of the batch (bytes) or the set (rows), or ImageBatch::none
  std::size_t draws = 0;   // ImageDraw [m], where samples are augmented
  std::size_t stored = 0;  // u8 [m, sample_bytes], where bytes are carried
  std::size_t bytes = 0;   // in all
};
RawLayout raw_layout(Carry, std::size_t sample_bytes, std::int64_t micro_batch, bool augmented);

}  // namespace dtrain::io
