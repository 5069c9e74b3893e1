#include "io/dataset/augment.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <type_traits>

#include <fmt/format.h>

#include "io/augment/draws.hpp"
#include "io/augment/rand_augment.hpp"
#include "io/dataset/convert.hpp"
#include "io/hdf5/stored.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

/// A kind's draws do not depend on what else is in the list.
template <class Kind>
std::uint32_t sub_of() {
  return static_cast<std::uint32_t>(Augmentation(Kind{}).index());
}

/// Composes maps from the result back to the stored image, in the order of the augmentations.
struct Composer {
  Augmenter::Draw& d;
  double height, width;  // of the image so far

  /// The next stage takes (x, y) from (xx x + xy y + x0, ...) of the image so far.
  void then(double xx, double xy, double x0, double yx, double yy, double y0) const {
    const Augmenter::Draw m = d;
    d.xx = m.xx * xx + m.xy * yx;
    d.xy = m.xx * xy + m.xy * yy;
    d.x0 = m.xx * x0 + m.xy * y0 + m.x0;
    d.yx = m.yx * xx + m.yy * yx;
    d.yy = m.yx * xy + m.yy * yy;
    d.y0 = m.yx * x0 + m.yy * y0 + m.y0;
  }
  /// About the centre: c + A (p - c).
  void about_centre(double xx, double xy, double yx, double yy) const {
    const double cx = width / 2, cy = height / 2;
    then(xx, xy, cx - xx * cx - xy * cy, yx, yy, cy - yx * cx - yy * cy);
  }
};

}  // namespace

/// One after the other: what comes before contrast changes the mean.
void recolor_in_order(const ColorChange& color, const ColorOrder& order, float most, std::span<float> pixels) {
  constexpr std::uint8_t brightness = 0, contrast = 1, saturation = 2;
  for (const std::uint8_t what : order) {
    ColorChange change{1, 1, 1, 0};
    float mean = 0;
    if (what == brightness) {
      for (float& v : pixels) v = clamped(v * color.brightness, most);
      continue;
    }
    if (what == contrast) {
      double sum = 0;
      for (std::size_t i = 0; i < pixels.size(); i += 3)
        sum += static_cast<double>(gray(pixels[i], pixels[i + 1], pixels[i + 2]));
      mean = static_cast<float>(sum * 3 / static_cast<double>(pixels.size()));
      change.contrast = color.contrast;
    } else if (what == saturation) {
      change.saturation = color.saturation;
    } else {
      change.hue = color.hue;
    }
    for (std::size_t i = 0; i < pixels.size(); i += 3)
      change_color(change, mean, most, pixels[i], pixels[i + 1], pixels[i + 2]);
  }
}

bool Augmenter::Draw::recolored() const noexcept {
  return color.brightness != 1 || color.contrast != 1 || color.saturation != 1 || color.hue != 0;
}
bool Augmenter::Draw::exact() const noexcept {
  return xy == 0 && yx == 0 && std::abs(xx) == 1 && std::abs(yy) == 1 && x0 == std::floor(x0) && y0 == std::floor(y0);
}
AffineMap Augmenter::Draw::map() const noexcept {
  return {static_cast<float>(xx), static_cast<float>(xy), static_cast<float>(x0),
          static_cast<float>(yx), static_cast<float>(yy), static_cast<float>(y0)};
}

Augmenter::Augmenter(const Dataset& data, std::size_t index, const Shape& input, const Normalize& normalize,
                     StoredLayout layout, std::span<const Augmentation> list, std::uint64_t seed)
    : list_(list.begin(), list.end()), key_(random_key(seed, Purpose::augment)), type_(data.port(index).type) {
  const DataPort& port = data.port(index);
  const std::string setting = port_setting(port, "augment"), model = model_name(port);
  if (input.rank() != 3) {
    throw ConfigError(fmt::format("{}: {} needs images; {} is {}, expected [channels, height, width]", setting,
                                  name_of(list_.at(0)), model, input.str()));
  }
  stored_channels_last_ = fit_input(data, index, input, layout) == SampleOrder::channels_last;
  channels_ = static_cast<int>(input[0]);
  height_ = stored_height_ = static_cast<int>(input[1]);
  width_ = stored_width_ = static_cast<int>(input[2]);
  for (const Augmentation& a : list_) {
    const auto* color = std::get_if<ColorJitter>(&a);
    if (color != nullptr && channels_ != 3) {
      throw ConfigError(fmt::format("{}: color_jitter needs 3 channels; {} is {}", setting, model, input.str()));
    }
    if (const auto* erasing = std::get_if<RandomErasing>(&a)) erasing_ = *erasing;
    if (const auto* rand = std::get_if<RandAugment>(&a)) rand_augment_ = *rand;
    const bool rand = std::holds_alternative<RandAugment>(a);
    if (rand && channels_ != 1 && channels_ != 3) {
      throw ConfigError(fmt::format("{}: rand_augment needs 1 or 3 channels; {} is {}", setting, model, input.str()));
    }
    if ((color != nullptr || rand) && size_of(type_) > 1 && !(normalize.scale > 0)) {
      throw ConfigError(fmt::format("{}: {} needs {} above 0: it takes values to 0 ... 1", setting, name_of(a),
                                    port_setting(port, "normalize.scale")));
    }
  }
  most_ = type_ == StoredType::u8 ? 255.0f : static_cast<float>(1 / normalize.scale);
  for (int c = 0; c < channels_; ++c) {
    const auto of = [c](const std::vector<double>& values, double none) {
      return values.empty() ? none : values[values.size() == 1 ? 0 : static_cast<std::size_t>(c)];
    };
    const double standard_deviation = of(normalize.standard_deviation, 1);
    scale_.push_back(normalize.scale / standard_deviation);
    offset_.push_back(-of(normalize.mean, 0) / standard_deviation);
    scale32_.push_back(static_cast<float>(scale_.back()));
    offset32_.push_back(static_cast<float>(offset_.back()));
    same_for_all_ = same_for_all_ && scale_.back() == scale_[0] && offset_.back() == offset_[0];
    if (size_of(type_) != 1) continue;
    for (int byte = 0; byte < 256; ++byte) {
      const double value = type_ == StoredType::i8 ? static_cast<std::int8_t>(byte) : byte;
      table_.push_back(static_cast<float>(value * scale_.back() + offset_.back()));
    }
  }
}

Augmenter::Draw Augmenter::draw(std::uint64_t position) const {
  Draw result;
  Composer image{result, static_cast<double>(stored_height_), static_cast<double>(stored_width_)};
  for (const Augmentation& augmentation : list_) {
    const auto sub = static_cast<std::uint32_t>(augmentation.index());
    const Random4 r = draw4(key_, position, sub, 0);
    if (const auto* crop = std::get_if<RandomCrop>(&augmentation)) {
      const auto room = [&](double size, int wanted) {
        return static_cast<std::int64_t>(size) + 2 * crop->padding - wanted + 1;
      };
      const auto left = whole(r.v[0], room(image.width, width_)), top = whole(r.v[1], room(image.height, height_));
      image.then(1, 0, static_cast<double>(left - crop->padding), 0, 1, static_cast<double>(top - crop->padding));
      image.width = width_;
      image.height = height_;
    } else if (const auto* resized = std::get_if<RandomResizedCrop>(&augmentation)) {
      // torchvision's rule: up to ten tries to find a window that fits, else the largest one in the middle.
      constexpr std::uint32_t tries = 10;
      double w = 0, h = 0, left = 0, top = 0;
      for (std::uint32_t attempt = 0; attempt < tries && w == 0; ++attempt) {
        const Random4 t = draw4(key_, position, sub, attempt);
        const double area = image.width * image.height * between(t.v[0], resized->scale[0], resized->scale[1]);
        const double ratio = std::exp(between(t.v[1], std::log(resized->ratio[0]), std::log(resized->ratio[1])));
        const double wide = std::round(std::sqrt(area * ratio)), high = std::round(std::sqrt(area / ratio));
        if (wide < 1 || high < 1 || wide > image.width || high > image.height) continue;
        w = wide;
        h = high;
        left = static_cast<double>(whole(t.v[2], static_cast<std::int64_t>(image.width - w) + 1));
        top = static_cast<double>(whole(t.v[3], static_cast<std::int64_t>(image.height - h) + 1));
      }
      if (w == 0) {
        const double ratio = std::clamp(image.width / image.height, resized->ratio[0], resized->ratio[1]);
        w = std::min(image.width, std::max(1.0, std::round(image.height * ratio)));
        h = std::min(image.height, std::max(1.0, std::round(image.width / ratio)));
        left = std::floor((image.width - w) / 2);
        top = std::floor((image.height - h) / 2);
      }
      image.then(w / width_, 0, left, 0, h / height_, top);
      image.width = width_;
      image.height = height_;
    } else if (const auto* flip = std::get_if<Flip>(&augmentation)) {
      if (unit(r.v[0]) < flip->horizontal) image.then(-1, 0, image.width, 0, 1, 0);
      if (unit(r.v[1]) < flip->vertical) image.then(1, 0, 0, 0, -1, image.height);
    } else if (const auto* rotation = std::get_if<Rotation>(&augmentation)) {
      const double angle = between(r.v[0], -rotation->degrees, rotation->degrees) * std::numbers::pi / 180;
      image.about_centre(std::cos(angle), std::sin(angle), -std::sin(angle), std::cos(angle));
    } else if (const auto* scaling = std::get_if<Scaling>(&augmentation)) {
      const double factor = between(r.v[0], scaling->factor[0], scaling->factor[1]);
      image.about_centre(1 / factor, 0, 0, 1 / factor);
    } else if (const auto* color = std::get_if<ColorJitter>(&augmentation)) {
      const auto factor = [](std::uint32_t bits, double by) {
        return static_cast<float>(between(bits, std::max(0.0, 1 - by), 1 + by));
      };
      result.color = {factor(r.v[0], color->brightness), factor(r.v[1], color->contrast),
                      factor(r.v[2], color->saturation), static_cast<float>(between(r.v[3], -color->hue, color->hue))};
      if (!color->random_order) continue;
      const Random4 places = draw4(key_, position, sub, 1);
      for (std::uint32_t last = 3; last > 0; --last)
        std::swap(result.order[last], result.order[static_cast<std::size_t>(whole(places.v[last], last + 1))]);
    } else if (const auto* erasing = std::get_if<RandomErasing>(&augmentation)) {
      result.erased = draw_rectangle(*erasing, key_, position, sub, height_, width_);
    }
  }
  return result;
}

/// A run of whole pixels of each row, and 0 around it.
template <class T, int fixed_channels>
void Augmenter::copy_pixels(const Draw& d, const StoredImage<T>& image, float* out) const {
  const int channels = fixed_channels > 0 ? fixed_channels : channels_;
  const auto convert = [this](int c, T value) {
    if constexpr (sizeof(T) == 1) {
      return table_[static_cast<std::size_t>(c) * 256 + static_cast<std::uint8_t>(value)];
    } else {
      const auto i = static_cast<std::size_t>(c);
      return static_cast<float>(static_cast<double>(value) * scale_[i] + offset_[i]);
    }
  };
  const auto fill = [&](float* to, int begin, int end) {
    for (int x = begin; x < end; ++x) {
      for (int c = 0; c < channels; ++c) to[x * channels + c] = convert(c, T{0});
    }
  };
  // Pixel i of the result is pixel step * i + first of the image.
  const int x_step = d.xx > 0 ? 1 : -1, x_first = static_cast<int>(d.x0) - (d.xx > 0 ? 0 : 1);
  const int y_step = d.yy > 0 ? 1 : -1, y_first = static_cast<int>(d.y0) - (d.yy > 0 ? 0 : 1);
  const int begin = std::clamp(x_step > 0 ? -x_first : x_first - image.width + 1, 0, width_);
  const int end = std::clamp(x_step > 0 ? image.width - x_first : x_first + 1, begin, width_);
  const bool run = x_step > 0 && image.column == channels && (same_for_all_ || channels == 1) && sizeof(T) == 1;
  for (int y = 0; y < height_; ++y) {
    float* to = out + static_cast<std::ptrdiff_t>(y) * width_ * channels;
    const int from_y = y_step * y + y_first;
    if (from_y < 0 || from_y >= image.height) {
      fill(to, 0, width_);
      continue;
    }
    fill(to, 0, begin);
    const T* from = image.data + from_y * image.row + (x_step * begin + x_first) * image.column;
    if (run) {
      const int count = (end - begin) * channels;
      for (int i = 0; i < count; ++i) to[begin * channels + i] = convert(0, from[i]);
    } else {
      for (int x = begin; x < end; ++x, from += x_step * image.column) {
        for (int c = 0; c < channels; ++c) to[x * channels + c] = convert(c, from[c * image.channel]);
      }
    }
    fill(to, end, width_);
  }
}

template <class T>
void Augmenter::copy(const Draw& d, const StoredImage<T>& image, float* out) const {
  if (channels_ == 3) return copy_pixels<T, 3>(d, image, out);
  if (channels_ == 1) return copy_pixels<T, 1>(d, image, out);
  copy_pixels<T, 0>(d, image, out);
}

/// `raw`: in stored units, as values are still to be changed; normalized otherwise.
template <class T, int fixed_channels>
void Augmenter::resample(const Draw& d, const StoredImage<T>& image, bool raw, float* out) const {
  const int channels = fixed_channels > 0 ? fixed_channels : channels_;
  const AffineMap map = d.map();
  for (int y = 0; y < height_; ++y) {
    for (int x = 0; x < width_; ++x, out += channels) {
      const Neighbours n = neighbours(image, source_of(map, x, y));
      for (int c = 0; c < channels; ++c) out[c] = bilinear(image, n, c);
      for (int c = 0; c < channels && !raw; ++c) out[c] = normalized(c, out[c]);
    }
  }
}

void Augmenter::recolor(const Draw& d, float* out) const {
  if (d.order != ColorOrder{0, 1, 2, 3}) {
    const auto values = 3 * static_cast<std::size_t>(height_) * static_cast<std::size_t>(width_);
    return recolor_in_order(d.color, d.order, most_, {out, values});
  }
  const ColorChange& change = d.color;
  const std::ptrdiff_t pixels = static_cast<std::ptrdiff_t>(height_) * width_;
  double sum = 0;
  for (std::ptrdiff_t i = 0; i < pixels; ++i) {
    float* p = out + 3 * i;
    for (int c = 0; c < 3; ++c) p[c] = clamped(p[c] * change.brightness, most_);
    sum += static_cast<double>(gray(p[0], p[1], p[2]));
  }
  const auto mean = static_cast<float>(sum / static_cast<double>(pixels));
  for (std::ptrdiff_t i = 0; i < pixels; ++i) {
    float* p = out + 3 * i;
    change_color(change, mean, most_, p[0], p[1], p[2]);
  }
}

/// On bytes, as others define it.
void Augmenter::rand_augment(const RandAugment& settings, std::uint64_t position, float* out) const {
  ByteImage image{height_, width_, channels_, {}};
  const std::ptrdiff_t values = static_cast<std::ptrdiff_t>(height_) * width_ * channels_;
  image.values.reserve(static_cast<std::size_t>(values));
  const float to_bytes = 255.0f / most_;
  for (std::ptrdiff_t i = 0; i < values; ++i)
    image.values.push_back(static_cast<std::uint8_t>(clamped(out[i] * to_bytes, 255.0f) + 0.5f));
  io::rand_augment(settings, key_, position, sub_of<RandAugment>(), image);
  for (std::ptrdiff_t i = 0; i < values; ++i)
    out[i] = static_cast<float>(image.values[static_cast<std::size_t>(i)]) / to_bytes;
}

void Augmenter::normalize(float* out) const {
  const std::ptrdiff_t pixels = static_cast<std::ptrdiff_t>(height_) * width_;
  for (std::ptrdiff_t i = 0; i < pixels; ++i, out += channels_)
    for (int c = 0; c < channels_; ++c) out[c] = normalized(c, out[c]);
}

std::int64_t Augmenter::operator()(const std::byte* stored, std::uint64_t position, float* out) const {
  const Draw d = draw(position);
  return with_stored_type(type_, [&](auto tag) -> std::int64_t {
    using T = decltype(tag);
    // Rows start at multiples of their size, and rows of samples of T at multiples of T's.
    const T* values = reinterpret_cast<const T*>(stored);
    const std::ptrdiff_t h = stored_height_, w = stored_width_, c = channels_;
    if constexpr (stored_float<T>) {
      double poison = 0;  // 0 unless a value is infinite or not a number
      for (std::ptrdiff_t i = 0; i < h * w * c; ++i) poison += static_cast<double>(static_cast<float>(values[i])) * 0.0;
      if (poison != 0) {
        for (std::ptrdiff_t i = 0; i < h * w * c; ++i)
          if (!std::isfinite(static_cast<float>(values[i]))) return i;
      }
    }
    const StoredImage<T> image = stored_channels_last_
                                     ? StoredImage<T>{values, stored_height_, stored_width_, w * c, c, 1}
                                     : StoredImage<T>{values, stored_height_, stored_width_, w, 1, h * w};
    const bool raw = d.recolored() || rand_augment_;
    if (d.exact() && !raw) {
      copy(d, image, out);
    } else if (channels_ == 3) {
      resample<T, 3>(d, image, raw, out);
    } else {
      resample<T, 0>(d, image, raw, out);
    }
    if (d.recolored()) recolor(d, out);
    if (rand_augment_) rand_augment(*rand_augment_, position, out);
    if (raw) normalize(out);
    if (d.erased.width > 0) erase(*erasing_, key_, position, sub_of<RandomErasing>(), d.erased, width_, channels_, out);
    return -1;
  });
}

}  // namespace dtrain::io
