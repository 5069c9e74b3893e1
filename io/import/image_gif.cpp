#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include <gif_lib.h>

#include "io/import/image_formats.hpp"

namespace dtrain::io {
namespace {

struct Source {
  ImageFile file;
  std::size_t at = 0;
};

int read(GifFileType* gif, GifByteType* to, int bytes) {
  auto* source = static_cast<Source*>(gif->UserData);
  const std::size_t count = std::min(static_cast<std::size_t>(std::max(bytes, 0)), source->file.size() - source->at);
  std::copy_n(source->file.begin() + static_cast<std::ptrdiff_t>(source->at), count, to);
  source->at += count;
  return static_cast<int>(count);
}

struct Close {
  void operator()(GifFileType* gif) const noexcept { DGifCloseFile(gif, nullptr); }
};

std::string reason(int code) {
  if (code == D_GIF_ERR_READ_FAILED || code == D_GIF_ERR_EOF_TOO_SOON) return "is truncated";
  const char* text = GifErrorString(code);
  return text == nullptr ? "is damaged" : text;
}

/// Colours by index; greys where a file has no palette, or a short one.
using Palette = std::array<std::array<std::uint8_t, 3>, 256>;
Palette palette_of(const GifFileType& gif) {
  Palette palette;
  for (std::size_t i = 0; i < palette.size(); ++i) palette[i].fill(static_cast<std::uint8_t>(i));
  const ColorMapObject* map = gif.Image.ColorMap != nullptr ? gif.Image.ColorMap : gif.SColorMap;
  for (std::size_t i = 0; map != nullptr && i < std::min<std::size_t>(palette.size(), map->ColorCount); ++i)
    palette[i] = {map->Colors[i].Red, map->Colors[i].Green, map->Colors[i].Blue};
  return palette;
}

/// The frame at hand, over what its transparent colour or the first one of the palette gives the rest of the image.
std::string read_frame(GifFileType& gif, std::size_t transparent, Image& image) {
  const auto left = static_cast<std::size_t>(gif.Image.Left), top = static_cast<std::size_t>(gif.Image.Top),
             width = static_cast<std::size_t>(gif.Image.Width), height = static_cast<std::size_t>(gif.Image.Height);
  if (width == 0 || height == 0) return "holds a frame without pixels";
  const std::size_t all_width = std::max(static_cast<std::size_t>(gif.SWidth), left + width),
                    all_height = std::max(static_cast<std::size_t>(gif.SHeight), top + height);
  if (std::string why = image.set_size(all_height, all_width); !why.empty()) return why;
  const Palette palette = palette_of(gif);
  if (width < all_width || height < all_height)
    for (std::size_t i = 0; i < all_height * all_width; ++i)
      std::memcpy(image.pixels.data() + 3 * i, palette[transparent].data(), 3);
  std::vector<GifPixelType> line(width);
  const auto read_line = [&](std::size_t y) {
    if (DGifGetLine(&gif, line.data(), static_cast<int>(width)) != GIF_OK) return false;
    std::uint8_t* to = image.pixels.data() + 3 * ((top + y) * all_width + left);
    for (std::size_t x = 0; x < width; ++x) std::memcpy(to + 3 * x, palette[line[x]].data(), 3);
    return true;
  };
  struct Pass {
    std::size_t first, step;
  };
  constexpr Pass plain[] = {{0, 1}}, interlaced[] = {{0, 8}, {4, 8}, {2, 4}, {1, 2}};
  for (const Pass pass : gif.Image.Interlace ? std::span<const Pass>(interlaced) : std::span<const Pass>(plain))
    for (std::size_t y = pass.first; y < height; y += pass.step)
      if (!read_line(y)) return reason(gif.Error);
  return {};
}

bool skip_frame(GifFileType& gif) {
  int size = 0;
  GifByteType* block = nullptr;
  bool good = DGifGetCode(&gif, &size, &block) == GIF_OK;
  while (good && block != nullptr) good = DGifGetCodeNext(&gif, &block) == GIF_OK;
  return good;
}

}  // namespace

std::string read_gif(ImageFile file, Image& image) {
  Source source{file};
  int code = 0;
  const std::unique_ptr<GifFileType, Close> gif(DGifOpen(&source, read, &code));
  if (gif == nullptr) return reason(code);
  std::size_t transparent = 0;
  image.frames = 0;
  GifRecordType kind = UNDEFINED_RECORD_TYPE;
  while (DGifGetRecordType(gif.get(), &kind) == GIF_OK && kind != TERMINATE_RECORD_TYPE) {
    if (kind == IMAGE_DESC_RECORD_TYPE) {
      if (DGifGetImageDesc(gif.get()) != GIF_OK) break;
      if (image.frames == 0) {
        if (std::string why = read_frame(*gif, transparent, image); !why.empty()) return why;
      } else if (!skip_frame(*gif)) {
        break;  // only the first is wanted
      }
      ++image.frames;
      continue;
    }
    int extension = 0;
    GifByteType* block = nullptr;
    bool good = DGifGetExtension(gif.get(), &extension, &block) == GIF_OK;
    GraphicsControlBlock control{};
    if (good && block != nullptr && extension == GRAPHICS_EXT_FUNC_CODE && image.frames == 0 &&
        DGifExtensionToGCB(block[0], block + 1, &control) == GIF_OK && control.TransparentColor != NO_TRANSPARENT_COLOR)
      transparent = static_cast<std::size_t>(control.TransparentColor);
    while (good && block != nullptr) good = DGifGetExtensionNext(gif.get(), &block) == GIF_OK;
    if (!good) break;
  }
  return image.frames > 0 ? "" : gif->Error != 0 ? reason(gif->Error) : "holds no image";
}

}  // namespace dtrain::io
