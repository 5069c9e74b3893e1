#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

#include <fmt/format.h>
#include <tiffio.h>

#include "io/import/image_formats.hpp"

namespace dtrain::io {
namespace {

constexpr tmsize_t most_at_once = tmsize_t{1} << 30;  // bytes of one allocation in the library

/// What libtiff's callbacks see.
struct Source {
  ImageFile file;
  std::uint64_t at = 0;
  std::array<char, 256> error{};  // the first, which is the cause
};

Source& of(thandle_t handle) {
  return *static_cast<Source*>(handle);
}
tmsize_t read(thandle_t handle, void* to, tmsize_t bytes) {
  Source& s = of(handle);
  const std::uint64_t left = s.at < s.file.size() ? s.file.size() - s.at : 0;
  const std::uint64_t count = std::min(static_cast<std::uint64_t>(std::max<tmsize_t>(bytes, 0)), left);
  if (count > 0) std::memcpy(to, s.file.data() + s.at, count);
  s.at += count;
  return static_cast<tmsize_t>(count);
}
tmsize_t write(thandle_t /*handle*/, void* /*from*/, tmsize_t /*bytes*/) {
  return 0;
}
toff_t seek(thandle_t handle, toff_t offset, int whence) {
  Source& s = of(handle);
  s.at = offset + (whence == SEEK_CUR ? s.at : whence == SEEK_END ? s.file.size() : 0);
  return s.at;
}
int close(thandle_t /*handle*/) {
  return 0;
}
toff_t size(thandle_t handle) {
  return of(handle).file.size();
}
/// Without copies: libtiff reads from its own ones in blocks that it takes for damaged tiles.
int map(thandle_t handle, void** begin, toff_t* bytes) {
  *begin = const_cast<std::uint8_t*>(of(handle).file.data());  // only read
  *bytes = of(handle).file.size();
  return 1;
}
void unmap(thandle_t /*handle*/, void* /*begin*/, toff_t /*bytes*/) {}
int failed(TIFF* /*tiff*/, void* user, const char* /*where*/, const char* format, va_list values) {
  Source& s = *static_cast<Source*>(user);
  if (s.error[0] == '\0') std::vsnprintf(s.error.data(), s.error.size(), format, values);
  return 1;  // nothing is printed
}
int warned(TIFF* /*tiff*/, void* /*user*/, const char* /*where*/, const char* /*format*/, va_list /*values*/) {
  return 1;
}

using Tiff = std::unique_ptr<TIFF, decltype(&TIFFClose)>;

Tiff open(Source& source) {
  const std::unique_ptr<TIFFOpenOptions, decltype(&TIFFOpenOptionsFree)> options(TIFFOpenOptionsAlloc(),
                                                                                 TIFFOpenOptionsFree);
  TIFFOpenOptionsSetMaxSingleMemAlloc(options.get(), most_at_once);
  TIFFOpenOptionsSetErrorHandlerExtR(options.get(), failed, &source);
  TIFFOpenOptionsSetWarningHandlerExtR(options.get(), warned, nullptr);
  return {TIFFClientOpenExt("image", "r", &source, read, write, seek, close, size, map, unmap, options.get()),
          TIFFClose};
}

/// Colours that were multiplied by an alpha channel are divided by it; others stay as they are. The library does the
/// contrary with the others, so it is told that they are multiplied.
bool take_alpha(TIFF* tiff) {
  std::uint16_t count = 0;
  const std::uint16_t* kinds = nullptr;
  TIFFGetFieldDefaulted(tiff, TIFFTAG_EXTRASAMPLES, &count, &kinds);
  if (count == 0 || kinds == nullptr || kinds[0] != EXTRASAMPLE_UNASSALPHA)
    return count > 0 && kinds[0] == EXTRASAMPLE_ASSOCALPHA;
  std::vector<std::uint16_t> given(kinds, kinds + count);
  given[0] = EXTRASAMPLE_ASSOCALPHA;
  TIFFSetField(tiff, TIFFTAG_EXTRASAMPLES, count, given.data());
  return false;
}

/// Where the pixel (row, column) of a stored image of h x w is seen, by TIFF's orientation.
std::pair<std::size_t, std::size_t> turned(int orientation, std::size_t row, std::size_t column, std::size_t h,
                                           std::size_t w) {
  const std::size_t up = h - 1 - row, back = w - 1 - column;
  switch (orientation) {
    case ORIENTATION_TOPRIGHT:
      return {row, back};
    case ORIENTATION_BOTRIGHT:
      return {up, back};
    case ORIENTATION_BOTLEFT:
      return {up, column};
    case ORIENTATION_LEFTTOP:
      return {column, row};
    case ORIENTATION_RIGHTTOP:
      return {column, up};
    case ORIENTATION_RIGHTBOT:
      return {back, up};
    case ORIENTATION_LEFTBOT:
      return {back, row};
    default:
      return {row, column};
  }
}

/// Frees what the library keeps for reading pixels.
struct Raster {
  TIFFRGBAImage reader{};
  bool begun = false;
  Raster(TIFF* tiff, char* why) : begun(TIFFRGBAImageBegin(&reader, tiff, 1, why) != 0) {}
  ~Raster() {
    if (begun) TIFFRGBAImageEnd(&reader);
  }
  Raster(const Raster&) = delete;
  Raster& operator=(const Raster&) = delete;
};

}  // namespace

std::string read_tiff(ImageFile file, Image& image) {
  Source source{file};
  const Tiff tiff = open(source);
  const auto broken = [&source] { return source.error[0] == '\0' ? std::string("is damaged") : source.error.data(); };
  if (tiff == nullptr) return broken();
  const bool multiplied = take_alpha(tiff.get());
  char why[1024] = "";
  if (TIFFRGBAImageOK(tiff.get(), why) == 0) return why;
  Raster raster(tiff.get(), why);
  if (!raster.begun) return why[0] != '\0' ? why : broken();
  const int orientation = raster.reader.orientation;
  raster.reader.req_orientation = raster.reader.orientation;  // as it is stored
  const std::size_t h = raster.reader.height, w = raster.reader.width;
  const bool across = orientation >= ORIENTATION_LEFTTOP && orientation <= ORIENTATION_LEFTBOT;
  if (std::string large = image.set_size(across ? w : h, across ? h : w); !large.empty()) return large;
  // Not touched before it is written: a header may promise more than the file holds.
  const std::unique_ptr<std::uint32_t[]> pixels(new std::uint32_t[h * w]);
  if (TIFFRGBAImageGet(&raster.reader, pixels.get(), raster.reader.width, raster.reader.height) == 0) return broken();
  for (std::size_t row = 0; row < h; ++row) {
    for (std::size_t column = 0; column < w; ++column) {
      const std::uint32_t pixel = pixels[row * w + column], alpha = TIFFGetA(pixel);
      const auto [y, x] = turned(orientation, row, column, h, w);
      std::uint8_t* to = image.pixels.data() + 3 * (y * static_cast<std::size_t>(image.width) + x);
      const std::uint32_t colours[] = {TIFFGetR(pixel), TIFFGetG(pixel), TIFFGetB(pixel)};
      for (std::size_t c = 0; c < 3; ++c)
        to[c] =
            static_cast<std::uint8_t>(multiplied && alpha > 0 ? std::min(255 * colours[c] / alpha, 255u) : colours[c]);
    }
  }
  image.frames = TIFFNumberOfDirectories(tiff.get());
  return {};
}

}  // namespace dtrain::io
