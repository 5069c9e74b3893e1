#include <array>
#include <csetjmp>
#include <cstring>
#include <new>

#include <png.h>

#include "io/import/image_formats.hpp"

namespace dtrain::io {
namespace {

/// What libpng's callbacks see.
struct Source {
  ImageFile file;
  std::size_t at = 0;
  std::array<char, 128> error{};
};

void read(png_structp png, png_bytep out, std::size_t bytes) {
  auto* source = static_cast<Source*>(png_get_io_ptr(png));
  if (source->file.size() - source->at < bytes) png_error(png, "is truncated");
  std::memcpy(out, source->file.data() + source->at, bytes);
  source->at += bytes;
}
void failed(png_structp png, png_const_charp text) {
  auto* source = static_cast<Source*>(png_get_error_ptr(png));
  std::strncpy(source->error.data(), text, source->error.size() - 1);
  png_longjmp(png, 1);
}
void warned(png_structp /*png*/, png_const_charp /*text*/) {}

/// Reads one PNG in two steps, because the caller has to make room for the pixels. Errors leave by longjmp, so nothing
/// between setjmp and the calls has a destructor.
class Reader {
 public:
  explicit Reader(ImageFile file) : source_{file} {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &source_, failed, warned);
    if (png_ == nullptr) throw std::bad_alloc();
    info_ = png_create_info_struct(png_);
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      throw std::bad_alloc();
    }
  }
  ~Reader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  const char* error() const { return source_.error.data(); }
  bool header(std::uint32_t& height, std::uint32_t& width) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;  // NOLINT(cert-err52-cpp): how libpng reports errors
    png_set_read_fn(png_, &source_, read);
    png_set_user_limits(png_, 1 << 20, 1 << 20);
    png_read_info(png_, info_);
    png_set_expand(png_);
    png_set_strip_16(png_);
    png_set_gray_to_rgb(png_);
    png_set_strip_alpha(png_);
    passes_ = png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    height = png_get_image_height(png_, info_);
    width = png_get_image_width(png_, info_);
    if (png_get_rowbytes(png_, info_) != std::size_t{3} * width) png_error(png_, "has an unknown pixel format");
    return true;
  }
  bool rows(std::uint8_t* out, std::uint32_t height, std::size_t row_bytes) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;  // NOLINT(cert-err52-cpp)
    for (int pass = 0; pass < passes_; ++pass) {
      for (std::uint32_t row = 0; row < height; ++row) png_read_row(png_, out + row * row_bytes, nullptr);
    }
    png_read_end(png_, nullptr);
    return true;
  }

 private:
  Source source_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  int passes_ = 1;
};

}  // namespace

std::string read_png(ImageFile file, Image& image) {
  Reader reader(file);
  std::uint32_t height = 0, width = 0;
  if (!reader.header(height, width)) return reader.error();
  if (std::string why = image.set_size(height, width); !why.empty()) return why;
  return reader.rows(image.pixels.data(), height, std::size_t{3} * width) ? "" : reader.error();
}

}  // namespace dtrain::io
