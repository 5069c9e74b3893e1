// Readers of image formats in memory: the first image of a file becomes 8-bit RGB pixels; internal to io/.
// Free functions on the caller's thread, one a format; an Image owns its pixels, and no header is trusted with more of
// them than max_pixels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dtrain::io {

struct Image {
  static constexpr std::uint64_t max_pixels = std::uint64_t{1} << 28;

  std::int64_t height = 0, width = 0;
  std::vector<std::uint8_t> pixels;  // [height, width, 3]
  std::uint64_t frames = 1;          // in the file; the pixels are those of the first

  /// Makes room for the pixels; returns what is wrong with the size, or an empty string.
  std::string set_size(std::uint64_t h, std::uint64_t w);
};

/// Reads a file of any of the formats below, whatever its name. Transparency, gamma and colour profiles are left out,
/// and of 16-bit values the high byte is kept, as is usual in training. Returns why the file is broken, or an empty
/// string.
std::string read_image(std::span<const std::byte> file, Image&);

using ImageFile = std::span<const std::uint8_t>;
std::string read_bmp(ImageFile, Image&);
std::string read_gif(ImageFile, Image&);
/// Warnings of the library about headers are taken as they are; a file whose pixels it had to make up is broken.
std::string read_jpeg(ImageFile, Image&);
std::string read_png(ImageFile, Image&);
std::string read_tiff(ImageFile, Image&);
std::string read_webp(ImageFile, Image&);

/// Ends of file names, in lower case.
std::span<const std::string_view> read_image_endings();

}  // namespace dtrain::io
