#include "io/import/image_formats.hpp"

#include <algorithm>
#include <array>

#include <fmt/format.h>

namespace dtrain::io {
namespace {

struct Format {
  std::string_view magic;  // '?': any byte
  std::string (*read)(ImageFile, Image&);
};

using std::string_view_literals::operator""sv;

constexpr Format formats[] = {
    {"\xff\xd8\xff"sv, read_jpeg},    {"\x89PNG\r\n\x1a\n"sv, read_png},
    {"RIFF????WEBP"sv, read_webp},    {"GIF87a"sv, read_gif},
    {"GIF89a"sv, read_gif},           {"II*\0"sv, read_tiff},
    {"MM\0*"sv, read_tiff},           {"II+\0\x08\0\0\0"sv, read_tiff},  // BigTIFF
    {"MM\0+\0\x08\0\0"sv, read_tiff}, {"BM"sv, read_bmp},
};

constexpr std::array<std::string_view, 11> endings{".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp",
                                                   ".gif", ".bmp",  ".dib", ".tif",  ".tiff"};

bool begins(ImageFile file, std::string_view magic) {
  return file.size() >= magic.size() &&
         std::equal(magic.begin(), magic.end(), file.begin(),
                    [](char m, std::uint8_t b) { return m == '?' || static_cast<std::uint8_t>(m) == b; });
}

}  // namespace

std::string Image::set_size(std::uint64_t h, std::uint64_t w) {
  if (h == 0 || w == 0) return "has no pixels";
  if (h > max_pixels / w) return fmt::format("is {} pixels high and {} wide, too large", h, w);
  height = static_cast<std::int64_t>(h);
  width = static_cast<std::int64_t>(w);
  pixels.resize(h * w * 3);
  return {};
}

std::string read_image(std::span<const std::byte> file, Image& image) {
  if (file.empty()) return "is empty";
  const ImageFile bytes(reinterpret_cast<const std::uint8_t*>(file.data()), file.size());
  image.frames = 1;
  for (const Format& format : formats) {
    if (!begins(bytes, format.magic)) continue;
    std::string why = format.read(bytes, image);
    std::replace(why.begin(), why.end(), '\n', ' ');
    return why;
  }
  return "is no JPEG, PNG, WebP, GIF, BMP or TIFF file";
}

std::span<const std::string_view> read_image_endings() {
  return endings;
}

}  // namespace dtrain::io
