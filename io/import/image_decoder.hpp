// JPEG and PNG files in memory -> 8-bit RGB pixels, scaled and cropped as asked; internal to io/.
// An ImageDecoder owns the buffers of one thread, and trusts no header with more memory than max_pixels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace dtrain::io {

/// How an image becomes one of the wanted size. The centre of what is left over is kept.
struct ImageSize {
  std::int64_t height = 0, width = 0;  // 0: as the first image
  bool resize = false;                 // else an image of another size is an error
  std::int64_t shorter = 0;  // resize: pixels of the shorter side before the crop; 0: as few as cover the size
};

class ImageDecoder {
 public:
  static constexpr std::uint64_t max_pixels = std::uint64_t{1} << 28;  // of one image

  ImageDecoder();
  ~ImageDecoder();
  ImageDecoder(const ImageDecoder&) = delete;
  ImageDecoder& operator=(const ImageDecoder&) = delete;

  /// Decodes; returns why the file is broken, or an empty string.
  std::string decode(std::span<const std::byte> file);
  std::int64_t height() const noexcept { return height_; }
  std::int64_t width() const noexcept { return width_; }
  /// [height, width, 3] of the last image.
  const std::uint8_t* pixels() const noexcept { return pixels_.data(); }
  /// The last image as [size.height, size.width, 3] at `out`: bilinear over the area a pixel comes from, as Pillow's
  /// resize does it, then cropped.
  void fit(const ImageSize&, std::uint8_t* out);

 private:
  struct Taps;  // of one axis
  std::string decode_jpeg(std::span<const std::byte> file);
  std::string decode_png(std::span<const std::byte> file);
  bool set_size(std::uint64_t height, std::uint64_t width, std::size_t samples);
  const Taps& taps(std::int64_t from, std::int64_t scaled, std::int64_t first, std::int64_t count);

  void* jpeg_ = nullptr;
  std::int64_t height_ = 0, width_ = 0;
  std::vector<std::uint8_t> pixels_, wide_, rows_;
  std::map<std::vector<std::int64_t>, Taps> taps_;
};

}  // namespace dtrain::io
