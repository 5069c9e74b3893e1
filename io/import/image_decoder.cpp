#include "io/import/image_decoder.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace dtrain::io {
namespace {

constexpr int precision_bits = 32 - 8 - 2;  // of a tap, so that a sum of products with bytes fits 32 bits

/// In place; as Pillow does it: ITU-R 601-2, rounded. A grey stays what it is.
void make_grey(std::vector<std::uint8_t>& pixels) {
  const std::size_t count = pixels.size() / 3;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint8_t* rgb = pixels.data() + 3 * i;
    pixels[i] = static_cast<std::uint8_t>((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16);
  }
  pixels.resize(count);
}

}  // namespace

std::string ImageDecoder::decode(std::span<const std::byte> file) {
  std::string why = read_image(file, image_);
  if (why.empty() && channels_ == 1) make_grey(image_.pixels);
  return why;
}

bool ImageDecoder::grey() const noexcept {
  if (channels_ == 1) return true;
  for (std::size_t i = 0; i + 2 < image_.pixels.size(); i += 3) {
    const std::uint8_t* rgb = image_.pixels.data() + i;
    if (rgb[0] != rgb[1] || rgb[1] != rgb[2]) return false;
  }
  return true;
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

template <int channels>
void ImageDecoder::scale(const Taps& across, const Taps& down, std::uint8_t* out) {
  const std::int64_t top = down.first.front(), bottom = down.first.back() + down.count.back();
  constexpr std::int32_t half = 1 << (precision_bits - 1);
  const auto byte = [](std::int32_t sum) {
    return static_cast<std::uint8_t>(std::clamp(sum >> precision_bits, 0, 255));
  };
  const auto out_row = across.first.size() * channels;
  rows_.resize(static_cast<std::size_t>(bottom - top) * out_row);
  for (std::int64_t y = top; y < bottom; ++y) {
    const std::uint8_t* in = image_.pixels.data() + y * image_.width * channels;
    std::uint8_t* to = rows_.data() + static_cast<std::size_t>(y - top) * out_row;
    for (std::size_t x = 0; x < across.first.size(); ++x) {
      const std::uint8_t* from = in + across.first[x] * channels;
      const std::int32_t* weight = across.weight.data() + x * across.width;
      std::int32_t sum[channels];
      std::fill(std::begin(sum), std::end(sum), half);
      for (std::int64_t k = 0; k < across.count[x]; ++k) {
        for (int c = 0; c < channels; ++c) sum[c] += from[channels * k + c] * weight[k];
      }
      for (int c = 0; c < channels; ++c) to[channels * x + static_cast<std::size_t>(c)] = byte(sum[c]);
    }
  }
  std::vector<std::int32_t> sums(out_row);
  for (std::size_t y = 0; y < down.first.size(); ++y) {
    std::fill(sums.begin(), sums.end(), half);
    for (std::int64_t k = 0; k < down.count[y]; ++k) {
      const std::uint8_t* from = rows_.data() + static_cast<std::size_t>(down.first[y] + k - top) * out_row;
      const std::int32_t weight = down.weight[y * down.width + static_cast<std::size_t>(k)];
      for (std::size_t i = 0; i < out_row; ++i) sums[i] += from[i] * weight;
    }
    for (std::size_t i = 0; i < out_row; ++i) out[y * out_row + i] = byte(sums[i]);
  }
}

void ImageDecoder::fit(const ImageSize& size, std::uint8_t* out) {
  const std::int64_t h = size.height, w = size.width;
  if (image_.height == h && image_.width == w && size.shorter == 0) {
    std::memcpy(out, image_.pixels.data(), image_.pixels.size());
    return;
  }
  // The scaled image, of which a window of h x w in the middle is worked out.
  std::int64_t scaled_h = 0, scaled_w = 0;
  if (size.shorter > 0) {
    const std::int64_t shorter = std::min(image_.height, image_.width);
    scaled_h = size.shorter * image_.height / shorter;
    scaled_w = size.shorter * image_.width / shorter;
  } else if (image_.height * w >= image_.width * h) {  // taller than wanted
    scaled_w = w;
    scaled_h = std::max(h, (image_.height * w + image_.width / 2) / image_.width);
  } else {
    scaled_h = h;
    scaled_w = std::max(w, (image_.width * h + image_.height / 2) / image_.height);
  }
  constexpr std::size_t kept = 64;
  if (taps_.size() >= kept) taps_.clear();  // images of many sizes
  const Taps& across = taps(image_.width, scaled_w, (scaled_w - w) / 2, w);
  const Taps& down = taps(image_.height, scaled_h, (scaled_h - h) / 2, h);
  if (channels_ == 1) {
    scale<1>(across, down, out);
  } else {
    scale<3>(across, down, out);
  }
}

}  // namespace dtrain::io
