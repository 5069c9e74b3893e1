#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>

#include "io/import/image_formats.hpp"

namespace dtrain::io {
namespace {

constexpr const char* truncated = "is truncated";

std::uint32_t number(ImageFile file, std::size_t at, std::size_t bytes) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < bytes; ++i) value |= std::uint32_t{file[at + i]} << (8 * i);
  return value;
}

enum Compression : std::uint32_t { none = 0, rle8 = 1, rle4 = 2, masks = 3, alpha_masks = 6 };

struct Header {
  std::uint64_t height = 0, width = 0;
  bool downwards = false;  // the first row of the file is the top one
  std::uint32_t bits = 0;  // of a pixel
  std::uint32_t compression = none;
  std::size_t pixels = 0;  // where they begin
  std::array<std::uint32_t, 3> mask{};
  std::array<std::array<std::uint8_t, 3>, 256> palette{};
};

/// Returns what is wrong with it.
std::string read_header(ImageFile file, Header& h) {
  constexpr std::size_t first = 14, core = 12, usual = 40, with_masks = 52;
  if (file.size() < first + core) return truncated;
  h.pixels = number(file, 10, 4);
  const std::size_t size = number(file, first, 4);
  if (size != core && size < usual) return "has a header that no BMP file has";
  if (file.size() < first + size) return truncated;
  std::uint32_t colours = 0;
  if (size == core) {
    h.width = number(file, 18, 2);
    h.height = number(file, 20, 2);
    h.bits = number(file, 24, 2);
  } else {
    const auto width = static_cast<std::int32_t>(number(file, 18, 4)),
               height = static_cast<std::int32_t>(number(file, 22, 4));
    h.downwards = height < 0;
    h.width = static_cast<std::uint64_t>(std::max(width, 0));
    h.height = static_cast<std::uint64_t>(std::abs(std::int64_t{height}));
    h.bits = number(file, 28, 2);
    h.compression = number(file, 30, 4);
    colours = number(file, 46, 4);
  }
  const bool indices = h.bits == 1 || h.bits == 2 || h.bits == 4 || h.bits == 8;
  const bool fits = h.compression == none   ? indices || h.bits == 16 || h.bits == 24 || h.bits == 32
                    : h.compression == rle8 ? h.bits == 8
                    : h.compression == rle4
                        ? h.bits == 4
                        : (h.compression == masks || h.compression == alpha_masks) && (h.bits == 16 || h.bits == 32);
  if (!fits) return "is compressed in a way, or has a number of bits, that is not read";
  std::size_t after = first + size;
  if (h.bits == 16) h.mask = {0x7c00, 0x03e0, 0x001f};
  if (h.bits == 32) h.mask = {0xff0000, 0xff00, 0xff};
  if (h.compression == masks || h.compression == alpha_masks) {
    // In longer headers, or behind the usual one.
    if (file.size() < first + with_masks) return truncated;
    for (std::size_t c = 0; c < 3; ++c) h.mask[c] = number(file, first + usual + 4 * c, 4);
    if (size < with_masks) after = first + with_masks;
  }
  if (!indices) return {};
  const std::size_t entry = size == core ? 3 : 4, most = std::size_t{1} << h.bits;
  const std::size_t count = colours == 0 ? most : std::min<std::size_t>(colours, most);
  if (file.size() < after + count * entry) return truncated;
  for (std::size_t i = 0; i < h.palette.size(); ++i) h.palette[i].fill(static_cast<std::uint8_t>(i));
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t c = 0; c < 3; ++c) h.palette[i][c] = file[after + i * entry + 2 - c];
  return {};
}

/// The bits of a mask as a byte.
std::uint8_t masked(std::uint32_t pixel, std::uint32_t mask) {
  if (mask == 0) return 0;
  const int shift = std::countr_zero(mask);
  return static_cast<std::uint8_t>(std::uint64_t{(pixel & mask) >> shift} * 255 / (mask >> shift));
}

std::string read_rows(ImageFile file, const Header& h, Image& image) {
  const std::uint64_t row_bytes = (h.width * h.bits + 31) / 32 * 4;
  const std::size_t last = static_cast<std::size_t>((h.width * h.bits + 7) / 8);  // the last row may lack its padding
  if (file.size() < h.pixels || file.size() - h.pixels < row_bytes * (h.height - 1) + last) return truncated;
  for (std::uint64_t y = 0; y < h.height; ++y) {
    const std::size_t from = h.pixels + row_bytes * y;
    std::uint8_t* to = image.pixels.data() + 3 * h.width * (h.downwards ? y : h.height - 1 - y);
    for (std::size_t x = 0; x < h.width; ++x, to += 3) {
      if (h.bits == 24) {
        for (std::size_t c = 0; c < 3; ++c) to[c] = file[from + 3 * x + 2 - c];
      } else if (h.bits > 8) {
        const std::uint32_t pixel = number(file, from + x * h.bits / 8, h.bits / 8);
        for (std::size_t c = 0; c < 3; ++c) to[c] = masked(pixel, h.mask[c]);
      } else {
        const std::size_t bit = x * h.bits;
        const unsigned index = file[from + bit / 8] >> (8 - h.bits - bit % 8) & ((1u << h.bits) - 1);
        std::memcpy(to, h.palette[index].data(), 3);
      }
    }
  }
  return {};
}

/// Pixels that are run over have index 0.
std::string read_runs(ImageFile file, const Header& h, Image& image) {
  for (std::size_t i = 0; i < h.height * h.width; ++i) std::memcpy(image.pixels.data() + 3 * i, h.palette[0].data(), 3);
  std::size_t at = h.pixels, x = 0, y = 0;
  const auto put = [&](unsigned index) {
    if (x >= h.width || y >= h.height) return;  // more than the row holds
    std::memcpy(image.pixels.data() + 3 * (h.width * (h.downwards ? y : h.height - 1 - y) + x), h.palette[index].data(),
                3);
    ++x;
  };
  const auto index_in = [&h](unsigned byte, std::size_t i) {
    return h.bits == 8 ? byte : i % 2 == 0 ? byte >> 4 : byte & 15;
  };
  while (at + 2 <= file.size()) {
    const unsigned count = file[at], value = file[at + 1];
    at += 2;
    if (count > 0) {
      for (std::size_t i = 0; i < count; ++i) put(index_in(value, i));
    } else if (value == 0) {  // end of a row
      x = 0;
      ++y;
    } else if (value == 1) {  // of the image
      return {};
    } else if (value == 2) {  // a step
      if (at + 2 > file.size()) return truncated;
      x = std::min<std::size_t>(x + file[at], h.width);
      y = std::min<std::size_t>(y + file[at + 1], h.height);
      at += 2;
    } else {  // so many pixels as they are
      const std::size_t bytes = h.bits == 8 ? value : (value + 1) / 2;
      if (file.size() - at < bytes) return truncated;
      for (std::size_t i = 0; i < value; ++i) put(index_in(file[at + (h.bits == 8 ? i : i / 2)], i));
      at += (bytes + 1) / 2 * 2;
    }
  }
  return y >= h.height || (y + 1 == h.height && x == h.width) ? "" : truncated;  // the end may not be marked
}

}  // namespace

std::string read_bmp(ImageFile file, Image& image) {
  Header header;
  if (std::string why = read_header(file, header); !why.empty()) return why;
  const bool runs = header.compression == rle8 || header.compression == rle4;
  // Pixels that are not run over are in the file, one by one.
  if (!runs && header.width > 0 && file.size() * 8 / header.bits / header.width < header.height) {
    if (header.height > Image::max_pixels / header.width) return Image().set_size(header.height, header.width);
    return truncated;
  }
  if (std::string why = image.set_size(header.height, header.width); !why.empty()) return why;
  return runs ? read_runs(file, header, image) : read_rows(file, header, image);
}

}  // namespace dtrain::io
