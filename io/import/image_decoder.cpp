#include "io/import/image_decoder.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <csetjmp>
#include <cstring>
#include <new>

#include <fmt/format.h>
#include <png.h>
#include <turbojpeg.h>

namespace dtrain::io {
namespace {

constexpr int precision_bits = 32 - 8 - 2;  // of a tap, so that a sum of products with bytes fits 32 bits

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

/// What libpng's callbacks see.
struct PngSource {
  std::span<const std::byte> file;
  std::size_t at = 0;
  std::array<char, 128> error{};
};

void png_read(png_structp png, png_bytep out, std::size_t bytes) {
  auto* source = static_cast<PngSource*>(png_get_io_ptr(png));
  if (source->file.size() - source->at < bytes) png_error(png, "is truncated");
  std::memcpy(out, source->file.data() + source->at, bytes);
  source->at += bytes;
}
void png_failed(png_structp png, png_const_charp text) {
  auto* source = static_cast<PngSource*>(png_get_error_ptr(png));
  std::strncpy(source->error.data(), text, source->error.size() - 1);
  png_longjmp(png, 1);
}
void png_warned(png_structp /*png*/, png_const_charp /*text*/) {}

/// Reads one PNG in two steps, because the caller has to make room for the pixels. Errors leave by longjmp, so nothing
/// between setjmp and the calls has a destructor.
class PngReader {
 public:
  explicit PngReader(std::span<const std::byte> file) : source_{file} {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &source_, png_failed, png_warned);
    if (png_ == nullptr) throw std::bad_alloc();
    info_ = png_create_info_struct(png_);
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      throw std::bad_alloc();
    }
  }
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  const char* error() const { return source_.error.data(); }
  bool header(std::uint32_t& height, std::uint32_t& width) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;  // NOLINT(cert-err52-cpp): how libpng reports errors
    png_set_read_fn(png_, &source_, png_read);
    png_set_user_limits(png_, 1 << 20, 1 << 20);
    png_read_info(png_, info_);
    // Everything becomes 8-bit RGB; transparency and gamma are left out, as is usual in training.
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
  PngSource source_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  int passes_ = 1;
};

/// x * y / 255, rounded, of bytes.
unsigned multiply_bytes(unsigned x, unsigned y) {
  const unsigned product = x * y + 128;
  return ((product >> 8) + product) >> 8;
}

}  // namespace

/// Output pixel i of an axis is the sum of weight[i * width + k] * in[first[i] + k].
struct ImageDecoder::Taps {
  std::size_t width = 0;
  std::vector<std::int64_t> first, count;
  std::vector<std::int32_t> weight;  // fixed point, precision_bits
};

ImageDecoder::ImageDecoder() : jpeg_(tjInitDecompress()) {
  if (jpeg_ == nullptr) throw std::bad_alloc();
}
ImageDecoder::~ImageDecoder() {
  if (jpeg_ != nullptr) tjDestroy(jpeg_);
}

bool ImageDecoder::set_size(std::uint64_t height, std::uint64_t width, std::size_t samples) {
  if (height == 0 || width == 0 || height > max_pixels / width) return false;
  height_ = static_cast<std::int64_t>(height);
  width_ = static_cast<std::int64_t>(width);
  pixels_.resize(height * width * 3);
  if (samples > 3) wide_.resize(height * width * samples);
  return true;
}

std::string ImageDecoder::decode(std::span<const std::byte> file) {
  static constexpr std::array<unsigned char, 3> jpeg{0xff, 0xd8, 0xff};
  static constexpr std::array<unsigned char, 8> png{0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  const auto begins = [&file](const auto& magic) {
    return file.size() >= magic.size() && std::memcmp(file.data(), magic.data(), magic.size()) == 0;
  };
  if (file.empty()) return "is empty";
  if (begins(jpeg)) {
    std::string why = decode_jpeg(file);
    if (!why.empty()) {  // a header that was cut short stays in the decoder's state
      tjDestroy(jpeg_);
      jpeg_ = tjInitDecompress();
      if (jpeg_ == nullptr) throw std::bad_alloc();
    }
    return why;
  }
  if (begins(png)) return decode_png(file);
  return "is neither JPEG nor PNG";
}

std::string ImageDecoder::decode_jpeg(std::span<const std::byte> file) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(file.data());
  int width = 0, height = 0, subsampling = 0, colours = 0;
  if (tjDecompressHeader3(jpeg_, bytes, file.size(), &width, &height, &subsampling, &colours) != 0)
    return one_line(tjGetErrorStr2(jpeg_));
  const bool four = colours == TJCS_CMYK || colours == TJCS_YCCK;
  if (!set_size(static_cast<std::uint64_t>(height), static_cast<std::uint64_t>(width), four ? 4 : 3))
    return fmt::format("is {} pixels high and {} wide, too large", height, width);
  // A warning is a file that was cut short or damaged: its pixels are made up.
  std::uint8_t* out = four ? wide_.data() : pixels_.data();
  if (tjDecompress2(jpeg_, bytes, file.size(), out, width, 0, height, four ? TJPF_CMYK : TJPF_RGB, TJFLAG_LIMITSCANS) !=
      0)
    return one_line(tjGetErrorStr2(jpeg_));
  if (!four) return {};
  // Adobe's files, which is all there are, hold inverted ink.
  const std::size_t count = pixels_.size() / 3;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint8_t* ink = wide_.data() + 4 * i;
    for (std::size_t c = 0; c < 3; ++c) pixels_[3 * i + c] = static_cast<std::uint8_t>(multiply_bytes(ink[c], ink[3]));
  }
  return {};
}

std::string ImageDecoder::decode_png(std::span<const std::byte> file) {
  PngReader reader(file);
  std::uint32_t height = 0, width = 0;
  if (!reader.header(height, width)) return one_line(reader.error());
  if (!set_size(height, width, 3)) return fmt::format("is {} pixels high and {} wide, too large", height, width);
  if (!reader.rows(pixels_.data(), height, std::size_t{3} * width)) return one_line(reader.error());
  return {};
}

const ImageDecoder::Taps& ImageDecoder::taps(std::int64_t from, std::int64_t scaled, std::int64_t first,
                                             std::int64_t count) {
  const auto [entry, made] = taps_.try_emplace({from, scaled, first, count});
  Taps& t = entry->second;
  if (!made) return t;
  const double scale = static_cast<double>(from) / static_cast<double>(scaled);
  const double support = std::max(scale, 1.0);
  t.width = static_cast<std::size_t>(std::ceil(support)) * 2 + 1;
  t.weight.resize(static_cast<std::size_t>(count) * t.width);
  std::vector<double> w(t.width);
  for (std::int64_t i = 0; i < count; ++i) {
    const double centre = (static_cast<double>(first + i) + 0.5) * scale;
    const auto begin = std::max<std::int64_t>(std::lround(centre - support), 0);
    const auto end = std::min<std::int64_t>(std::lround(centre + support), from);
    double sum = 0;
    for (std::int64_t k = begin; k < end; ++k) {
      const double distance = std::abs((static_cast<double>(k) - centre + 0.5) / support);
      sum += w[static_cast<std::size_t>(k - begin)] = std::max(0.0, 1.0 - distance);
    }
    for (std::int64_t k = begin; k < end; ++k) {
      const double weight = w[static_cast<std::size_t>(k - begin)] / sum;
      t.weight[static_cast<std::size_t>(i) * t.width + static_cast<std::size_t>(k - begin)] =
          static_cast<std::int32_t>(std::lround(weight * (1 << precision_bits)));
    }
    t.first.push_back(begin);
    t.count.push_back(end - begin);
  }
  return t;
}

void ImageDecoder::fit(const ImageSize& size, std::uint8_t* out) {
  const std::int64_t h = size.height, w = size.width;
  if (height_ == h && width_ == w && size.shorter == 0) {
    std::memcpy(out, pixels_.data(), pixels_.size());
    return;
  }
  // The scaled image, of which a window of h x w in the middle is worked out.
  std::int64_t scaled_h = 0, scaled_w = 0;
  if (size.shorter > 0) {
    const std::int64_t shorter = std::min(height_, width_);
    scaled_h = size.shorter * height_ / shorter;
    scaled_w = size.shorter * width_ / shorter;
  } else if (height_ * w >= width_ * h) {  // taller than wanted
    scaled_w = w;
    scaled_h = std::max(h, (height_ * w + width_ / 2) / width_);
  } else {
    scaled_h = h;
    scaled_w = std::max(w, (width_ * h + height_ / 2) / height_);
  }
  constexpr std::size_t kept = 64;
  if (taps_.size() >= kept) taps_.clear();  // images of many sizes
  const Taps& across = taps(width_, scaled_w, (scaled_w - w) / 2, w);
  const Taps& down = taps(height_, scaled_h, (scaled_h - h) / 2, h);
  const std::int64_t top = down.first.front(), bottom = down.first.back() + down.count.back();
  constexpr std::int32_t half = 1 << (precision_bits - 1);
  const auto byte = [](std::int32_t sum) {
    return static_cast<std::uint8_t>(std::clamp(sum >> precision_bits, 0, 255));
  };
  const auto out_row = static_cast<std::size_t>(w) * 3;
  rows_.resize(static_cast<std::size_t>(bottom - top) * out_row);
  for (std::int64_t y = top; y < bottom; ++y) {
    const std::uint8_t* in = pixels_.data() + y * width_ * 3;
    std::uint8_t* to = rows_.data() + static_cast<std::size_t>(y - top) * out_row;
    for (std::size_t x = 0; x < static_cast<std::size_t>(w); ++x) {
      const std::uint8_t* from = in + across.first[x] * 3;
      const std::int32_t* weight = across.weight.data() + x * across.width;
      std::int32_t sum[3] = {half, half, half};
      for (std::int64_t k = 0; k < across.count[x]; ++k) {
        for (int c = 0; c < 3; ++c) sum[c] += from[3 * k + c] * weight[k];
      }
      for (int c = 0; c < 3; ++c) to[3 * x + static_cast<std::size_t>(c)] = byte(sum[c]);
    }
  }
  std::vector<std::int32_t> sums(out_row);
  for (std::size_t y = 0; y < static_cast<std::size_t>(h); ++y) {
    std::fill(sums.begin(), sums.end(), half);
    for (std::int64_t k = 0; k < down.count[y]; ++k) {
      const std::uint8_t* from = rows_.data() + static_cast<std::size_t>(down.first[y] + k - top) * out_row;
      const std::int32_t weight = down.weight[y * down.width + static_cast<std::size_t>(k)];
      for (std::size_t i = 0; i < out_row; ++i) sums[i] += from[i] * weight;
    }
    for (std::size_t i = 0; i < out_row; ++i) out[y * out_row + i] = byte(sums[i]);
  }
}

}  // namespace dtrain::io
