#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>

// clang-format off
#include <jpeglib.h>
#include <jerror.h>  // asks what the other one says
// clang-format on

#include "io/import/image_formats.hpp"

namespace dtrain::io {
namespace {

constexpr int max_scans = 500;        // a small file may hold so many more that it takes minutes
constexpr JDIMENSION most_rows = 16;  // at once

/// x * y / 255, rounded, of bytes.
unsigned multiply_bytes(unsigned x, unsigned y) {
  const unsigned product = x * y + 128;
  return ((product >> 8) + product) >> 8;
}

/// What libjpeg's callbacks see.
struct Escape {
  jpeg_error_mgr errors;  // first: the library knows this alone
  jpeg_progress_mgr progress;
  std::jmp_buf to;
  std::array<char, JMSG_LENGTH_MAX> text;
  bool made_up;  // pixels, as the compressed data were damaged or not all there
  bool no_end;   // the marker of the end is missing
};

[[noreturn]] void failed(j_common_ptr jpeg) {
  auto* escape = reinterpret_cast<Escape*>(jpeg->err);
  jpeg->err->format_message(jpeg, escape->text.data());
  std::longjmp(escape->to, 1);  // NOLINT(cert-err52-cpp): how libjpeg reports errors
}

void noted(j_common_ptr jpeg, int level) {
  if (level >= 0) return;  // a trace
  auto* escape = reinterpret_cast<Escape*>(jpeg->err);
  switch (jpeg->err->msg_code) {
    case JWRN_JPEG_EOF:
      escape->no_end = true;
      return;
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
      std::strcpy(escape->text.data(), "is damaged: some of its pixels cannot be read");
      escape->made_up = true;
      return;
    default:
      return;  // odd headers, as many cameras and editors write them
  }
}

void silent(j_common_ptr /*jpeg*/) {}

void limit_scans(j_common_ptr jpeg) {
  auto* escape = reinterpret_cast<Escape*>(jpeg->err);
  if (reinterpret_cast<j_decompress_ptr>(jpeg)->input_scan_number <= max_scans) return;
  std::snprintf(escape->text.data(), escape->text.size(), "has more than %d scans", max_scans);
  std::longjmp(escape->to, 1);  // NOLINT(cert-err52-cpp)
}

/// Reads one JPEG in two steps, because the caller has to make room for the pixels. Errors leave by longjmp, so nothing
/// between setjmp and the calls has a destructor.
class Reader {
 public:
  Reader() {
    jpeg_.err = jpeg_std_error(&escape_.errors);
    escape_.errors.error_exit = failed;
    escape_.errors.emit_message = noted;
    escape_.errors.output_message = silent;
    escape_.progress.progress_monitor = limit_scans;
  }
  ~Reader() { jpeg_destroy_decompress(&jpeg_); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  const char* error() const { return escape_.text.data(); }
  bool header(ImageFile file) {
    if (setjmp(escape_.to) != 0) return false;  // NOLINT(cert-err52-cpp)
    jpeg_create_decompress(&jpeg_);
    jpeg_.progress = &escape_.progress;
    jpeg_mem_src(&jpeg_, file.data(), static_cast<unsigned long>(file.size()));
    jpeg_read_header(&jpeg_, TRUE);
    jpeg_.out_color_space = inks() ? JCS_CMYK : JCS_RGB;
    return true;
  }
  /// Four colours, of which the pixels are made.
  bool inks() const { return jpeg_.jpeg_color_space == JCS_CMYK || jpeg_.jpeg_color_space == JCS_YCCK; }
  std::uint64_t height() const { return jpeg_.image_height; }
  std::uint64_t width() const { return jpeg_.image_width; }
  /// `out`: [height, width, 3]; `ink`: most_rows rows of four, where there are inks().
  bool rows(std::uint8_t* out, std::uint8_t* ink) {
    if (setjmp(escape_.to) != 0) return false;  // NOLINT(cert-err52-cpp)
    jpeg_start_decompress(&jpeg_);
    const bool scans = jpeg_has_multiple_scans(&jpeg_) != 0;
    const std::size_t width = jpeg_.output_width;
    while (jpeg_.output_scanline < jpeg_.output_height) {
      std::uint8_t* const to = out + jpeg_.output_scanline * width * 3;
      const JDIMENSION left = jpeg_.output_height - jpeg_.output_scanline, count = left < most_rows ? left : most_rows;
      JSAMPROW rows[most_rows];
      for (std::size_t i = 0; i < count; ++i) rows[i] = inks() ? ink + i * width * 4 : to + i * width * 3;
      const std::size_t got = jpeg_read_scanlines(&jpeg_, rows, count);
      // Adobe's files, which is all there are, hold inverted ink.
      for (std::size_t i = 0; inks() && i < got * width; ++i)
        for (std::size_t c = 0; c < 3; ++c)
          to[3 * i + c] = static_cast<std::uint8_t>(multiply_bytes(ink[4 * i + c], ink[4 * i + 3]));
    }
    jpeg_finish_decompress(&jpeg_);
    // The marker of the end alone may be missing; where a file has several scans, more of them may be.
    if (escape_.no_end && (escape_.made_up || scans)) {
      std::strcpy(escape_.text.data(), "is truncated");
      return false;
    }
    return !escape_.made_up;
  }

 private:
  jpeg_decompress_struct jpeg_{};
  Escape escape_{};
};

}  // namespace

std::string read_jpeg(ImageFile file, Image& image) {
  Reader reader;
  if (!reader.header(file)) return reader.error();
  if (std::string why = image.set_size(reader.height(), reader.width()); !why.empty()) return why;
  std::vector<std::uint8_t> ink(reader.inks() ? most_rows * reader.width() * 4 : 0);
  return reader.rows(image.pixels.data(), ink.data()) ? "" : reader.error();
}

}  // namespace dtrain::io
