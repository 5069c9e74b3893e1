// Image files in memory -> 8-bit pixels of three channels (RGB) or one (grey), scaled and cropped as asked; internal to
// io/. An ImageDecoder owns the buffers of one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "io/import/image_formats.hpp"
#include "io/import/image_preprocessing.hpp"

namespace dtrain::io {

class ImageDecoder {
 public:
  explicit ImageDecoder(int channels = 3) : channels_(channels) {}

  /// Decodes; returns why the file is broken, or an empty string.
  std::string decode(std::span<const std::byte> file);
  std::int64_t height() const noexcept { return image_.height; }
  std::int64_t width() const noexcept { return image_.width; }
  /// In the last file; the first is decoded.
  std::uint64_t frames() const noexcept { return image_.frames; }
  /// Whether each pixel of the last image is a grey.
  bool grey() const noexcept;
  /// [height, width, channels] of the last image.
  const std::uint8_t* pixels() const noexcept { return image_.pixels.data(); }
  /// The last image as [size.height, size.width, channels] at `out`: bilinear over the area a pixel comes from, as
  /// Pillow's resize does it, then cropped.
  void fit(const ImageSize&, std::uint8_t* out);

 private:
  struct Taps {  // of one axis: output pixel i is the sum of weight[i * width + k] * in[first[i] + k]
    std::size_t width = 0;
    std::vector<std::int64_t> first, count;
    std::vector<std::int32_t> weight;  // fixed point
  };
  const Taps& taps(std::int64_t from, std::int64_t scaled, std::int64_t first, std::int64_t count);
  template <int channels>
  void scale(const Taps& across, const Taps& down, std::uint8_t* out);

  const int channels_;
  Image image_;
  std::vector<std::uint8_t> rows_;
  std::map<std::vector<std::int64_t>, Taps> taps_;
};

}  // namespace dtrain::io
