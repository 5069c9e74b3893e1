#include "io/augment/mixer.hpp"

#include <algorithm>
#include <cmath>

#include "io/augment/draws.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

/// Beside those of the kinds of augmentations, which count from 0.
constexpr std::uint32_t sub = 0x6d6978;
constexpr std::uint32_t first_gamma = 2, second_gamma = 1u << 16;

}  // namespace

Mixer::Mixer(const Mix& mix, const TensorDesc& input, std::uint64_t seed)
    : mix_(mix), key_(random_key(seed, Purpose::augment)), values_(input.elements() / input.batch()) {
  if (input.dtype != DType::f32) throw BugError("mix: numbers that are no float32");
  if (mix.cutmix <= 0) return;
  if (input.shape.rank() != 4) throw ConfigError("data.mix.cutmix: the input is no image; expected mixup");
  height_ = static_cast<int>(input.shape[1]);
  width_ = static_cast<int>(input.shape[2]);
  channels_ = static_cast<int>(input.shape[3]);
}

/// The logarithm of a draw of the gamma distribution: Marsaglia and Tsang, 2000. Small shapes give values that no
/// double holds, so that it stays a logarithm.
double Mixer::log_gamma_draw(std::uint64_t position, double shape, std::uint32_t first_block) const {
  const double larger = shape < 1 ? shape + 1 : shape;
  const double d = larger - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  // A try succeeds with more than 95 %.
  constexpr std::uint32_t tries = 1024;
  double log_draw = std::log(d);
  for (std::uint32_t attempt = 0; attempt < tries; ++attempt) {
    const Random4 r = draw4(key_, position, sub, first_block + attempt);
    const double x = normal(r.v[0], r.v[1]), v = std::pow(1 + c * x, 3);
    if (v <= 0 || std::log(open_unit(r.v[2])) >= x * x / 2 + d - d * v + d * std::log(v)) continue;
    log_draw = std::log(d * v);
    if (shape < 1) log_draw += std::log(open_unit(r.v[3])) / shape;
    break;
  }
  return log_draw;
}

/// X / (X + Y) of two gamma draws.
double Mixer::beta(std::uint64_t position, double alpha) const {
  const double x = log_gamma_draw(position, alpha, first_gamma), y = log_gamma_draw(position, alpha, second_gamma);
  return 1 / (1 + std::exp(y - x));
}

Mixer::Draw Mixer::draw(std::uint64_t position) const {
  Draw d;
  const Random4 r = draw4(key_, position, sub, 0);
  if (unit(r.v[0]) >= mix_.probability) return d;
  d.cut = mix_.cutmix > 0 && (mix_.mixup <= 0 || unit(r.v[1]) < mix_.cutmix_probability);
  const double own = beta(position, d.cut ? mix_.cutmix : mix_.mixup);
  if (!d.cut) {
    // Smaller parts than 2^-20 would be weights that sums of weights cannot hold.
    d.own = static_cast<float>(std::nearbyint(own * 0x1p20) * 0x1p-20);
    return d;
  }
  // torchvision's rule: a rectangle about a pixel, cut at the edges; its true area counts.
  const Random4 at = draw4(key_, position, sub, 1);
  const double side = 0.5 * std::sqrt(1 - own);
  const int x = static_cast<int>(whole(at.v[0], width_)), y = static_cast<int>(whole(at.v[1], height_));
  const int half_width = static_cast<int>(side * width_), half_height = static_cast<int>(side * height_);
  d.left = std::max(x - half_width, 0);
  d.top = std::max(y - half_height, 0);
  d.right = std::min(x + half_width, width_);
  d.bottom = std::min(y + half_height, height_);
  const double area = static_cast<double>(d.right - d.left) * (d.bottom - d.top);
  d.own = static_cast<float>(1 - area / (static_cast<double>(width_) * height_));
  return d;
}

void Mixer::mix(const Draw& d, const float* partner, float* values) const {
  if (d.cut) {
    const std::ptrdiff_t count = static_cast<std::ptrdiff_t>(d.right - d.left) * channels_;
    for (int y = d.top; y < d.bottom; ++y) {
      const std::ptrdiff_t at = (static_cast<std::ptrdiff_t>(y) * width_ + d.left) * channels_;
      std::copy_n(partner + at, count, values + at);
    }
    return;
  }
  if (d.own == 1) return;
  const float other = 1 - d.own;
  for (std::int64_t i = 0; i < values_; ++i) values[i] = values[i] * d.own + partner[i] * other;
}

}  // namespace dtrain::io
