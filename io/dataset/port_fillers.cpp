#include "io/dataset/port_fillers.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "io/samples/text_samples.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {

bool lies_over(const TensorDesc& desc, PortUse use, const TensorDesc& image) {
  const auto pixels = [](const TensorDesc& d, bool channels) {
    return d.shape.rank() == (channels ? 4 : 3) ? Shape{d.shape[1], d.shape[2]} : Shape{};
  };
  const Shape wanted = image.is_index() ? Shape{} : pixels(image, true);
  return wanted.rank() > 0 && pixels(desc, use != PortUse::weight && !desc.is_index()) == wanted;
}

std::optional<Spread> spread_of(const Dataset& data, const BatchLayout& layout, std::span<const PortOptions> ports,
                                std::size_t port) {
  constexpr std::uint64_t samples = 16;
  const NumberFiller filler(data, layout, ports, port, nullptr, nullptr);
  FillScratch scratch;
  filler.reserve(scratch);
  std::vector<float> values(filler.bytes() / sizeof(float));
  const std::uint64_t n = std::min(data.count(), samples);
  double sum = 0, squares = 0, count = 0;
  try {
    for (std::uint64_t i = 0; i < n; ++i) {
      const std::uint64_t index = n == 1 ? 0 : i * (data.count() - 1) / (n - 1);
      filler.fill(index, index, scratch, reinterpret_cast<std::byte*>(values.data()));
      for (const float v : values) {
        sum += static_cast<double>(v);
        squares += static_cast<double>(v) * static_cast<double>(v);
      }
      count += static_cast<double>(values.size());
    }
  } catch (const DataError&) {
    return std::nullopt;  // training tells of it
  }
  if (count == 0) return std::nullopt;
  const double mean = sum / count;
  return Spread{mean, std::sqrt(std::max(0., squares / count - mean * mean))};
}

namespace {

/// The image's place among the ports that this one follows, or -1.
int followed_image(std::span<const PortOptions> ports, std::size_t port) {
  // Weights of positions lie where their target lies.
  if (ports[port].follow < 0 && is_weight(ports[port]) && ports[port].target >= 0)
    return ports[static_cast<std::size_t>(ports[port].target)].follow;
  return ports[port].follow;
}

/// The augmenter of the image that a port follows; null where it follows none, or nothing moves.
const Augmenter* followed_by(const BatchLayout& layout, std::span<const PortOptions> ports, std::size_t port,
                             std::span<const std::unique_ptr<Augmenter>> augmenters) {
  const int follow = followed_image(ports, port);
  if (follow < 0) return nullptr;
  const auto image = static_cast<std::size_t>(follow);
  const TensorDesc &of = layout.ports[image].desc, &desc = layout.ports[port].desc;
  if (is_weight(ports[port]) && desc.shape.rank() < 3) return nullptr;  // one for all of a sample
  if (!lies_over(desc, ports[port].use, of)) {
    throw ConfigError(fmt::format("{} follows {}, so both need the same height and width; they are {} and {}",
                                  layout.ports[port].name, layout.ports[image].name, desc.sample_str(),
                                  of.sample_str()));
  }
  if (cannot_be_followed(ports[image].augment)) {
    throw ConfigError(
        fmt::format("{} follows {}, whose rand_augment moves pixels step by step: nothing can follow "
                    "that; expected other augmentations, such as rotation and color_jitter",
                    layout.ports[port].name, layout.ports[image].name));
  }
  return augmenters[image].get();
}

/// What lies over an image that moves and does not move with it would be trained at wrong places. Of weights: of the
/// file, a number a pixel.
void check_followed(const Dataset& data, const BatchLayout& layout, std::span<const PortOptions> ports,
                    std::size_t port) {
  const PortOptions& options = ports[port];
  if (options.use == PortUse::input || options.source < 0 || followed_image(ports, port) >= 0) return;
  const DataPort& held = data.port(static_cast<std::size_t>(options.source));
  if (is_weight(options) && held.row.elements() == 1) return;
  for (std::size_t image = 0; image < ports.size(); ++image) {
    if (!moves(ports[image].augment) || !lies_over(layout.ports[port].desc, options.use, layout.ports[image].desc))
      continue;
    const std::string section = fmt::format("data.{}.{}", is_weight(options) ? "weights" : "targets", held.name);
    throw ConfigError(fmt::format(
        "{}: it has a value for each pixel of {}, whose augment moves pixels; expected follow: {}, as in "
        "{}: {{key: {}, follow: {}}}",
        section, layout.ports[image].name, layout.ports[image].name, section, held.key, layout.ports[image].name));
  }
}

}  // namespace

PortFillers::PortFillers(const Dataset& data, const BatchLayout& layout, std::span<const PortOptions> ports,
                         const Mix& mix, std::uint64_t seed, bool training)
    : ports_(ports), augmenters_(ports.size()), fillers_(ports.size()), weights_(ports.size()), indices_(ports.size()) {
  if (ports.size() != layout.ports.size()) throw BugError("loader: options of other ports than the layout has");
  // A prediction, which reads no labels, sees all tokens. Evaluations of runs of any seed hide the same ones.
  const MaskTokens* const hidden = data.text() != nullptr ? data.text()->mask_tokens() : nullptr;
  if (hidden != nullptr &&
      std::any_of(ports.begin(), ports.end(), [](const PortOptions& o) { return o.use == PortUse::target; }))
    masking_.emplace(*hidden, training ? seed : 0);
  for (std::size_t i = 0; i < ports.size(); ++i) {
    const PortOptions& o = ports[i];
    if (!is_weight(o) && (o.source < 0 || static_cast<std::size_t>(o.source) >= data.ports().size()))
      throw BugError(fmt::format("loader: nothing to fill {} with", layout.ports[i].name));
    if (!training || o.augment.empty()) continue;
    const auto source = static_cast<std::size_t>(o.source);
    augmenters_[i] = std::make_unique<Augmenter>(data, source, layout.ports[i].desc.sample(), o.normalize, o.layout,
                                                 o.augment, seed);
  }
  for (std::size_t i = 0; i < ports.size() && training; ++i) check_followed(data, layout, ports, i);
  if (training && mix.on()) {
    const auto numbers =
        std::find_if(ports.begin(), ports.end(), [](const PortOptions& o) { return o.use == PortUse::input; });
    if (numbers == ports.end()) throw BugError("loader: nothing to mix");
    mixer_.emplace(mix, layout.ports[static_cast<std::size_t>(numbers - ports.begin())].desc, seed);
  }
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (is_weight(ports[i])) continue;
    const Augmenter* followed = followed_by(layout, ports, i, augmenters_);
    if (layout.ports[i].desc.is_index()) {
      const bool masked = masking_ && data.port(static_cast<std::size_t>(ports[i].source)).text != TextPart::documents;
      auto filler = std::make_unique<IndexFiller>(data, layout, ports, i, followed, masked ? &*masking_ : nullptr);
      indices_[i] = filler.get();
      fillers_[i] = std::move(filler);
    } else {
      fillers_[i] = std::make_unique<NumberFiller>(data, layout, ports, i, augmenters_[i].get(), followed);
    }
  }
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (!is_weight(ports[i])) continue;
    const int target = ports[i].target;
    auto filler = std::make_unique<WeightFiller>(
        data, layout, ports, i, target < 0 ? nullptr : fillers_[static_cast<std::size_t>(target)].get(),
        followed_by(layout, ports, i, augmenters_));
    weights_[i] = filler.get();
    fillers_[i] = std::move(filler);
  }
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (ports[i].use != PortUse::target || !data.port(static_cast<std::size_t>(ports[i].source)).ragged()) continue;
    const bool masked = std::any_of(weights_.begin(), weights_.end(),
                                    [&](const WeightFiller* w) { return w != nullptr && w->masks(*fillers_[i]); });
    if (masked || (indices_[i] != nullptr && ports[i].ignore)) continue;
    throw ConfigError(
        fmt::format("the target {} has samples of different lengths; its loss needs ignore, or a weight a "
                    "position, to leave out what is behind them",
                    layout.ports[i].name));
  }
}

void PortFillers::reserve(FillScratch& scratch) const {
  for (const auto& filler : fillers_) filler->reserve(scratch);
  scratch.held.resize(fillers_.size());
  if (mixer_)
    for (const auto& filler : fillers_) scratch.partner.emplace_back(filler->bytes());
}

/// Weights last: they read targets. `at(port)`: where a value goes.
template <class F>
void PortFillers::fill_sample(std::uint64_t index, std::uint64_t position, FillScratch& scratch, const F& at) const {
  for (std::size_t port = 0; port < fillers_.size(); ++port) {
    if (is_weight(ports_[port]) || ports_[port].carry != Carry::floats) continue;
    scratch.held[port] = fillers_[port]->fill(index, position, scratch, at(port));
  }
  for (std::size_t port = 0; port < fillers_.size(); ++port) {
    const WeightFiller* const weights = weights_[port];
    if (weights == nullptr) continue;
    weights->fill(index, position, scratch, at(port));
    if (ports_[port].target < 0) continue;
    const auto target = static_cast<std::size_t>(ports_[port].target);
    weights->apply_target(index, at(target), scratch.held[target], at(port));
  }
}

void PortFillers::fill(std::uint64_t index, std::uint64_t position, FillScratch& scratch, std::span<const Tensor> batch,
                       std::size_t row) const {
  fill_sample(index, position, scratch, [&](std::size_t port) { return value_of(batch, port, row); });
}

void PortFillers::pad(std::span<const Tensor> batch, std::size_t row) const {
  for (std::size_t port = 0; port < fillers_.size(); ++port) {
    if (!batch[port]) continue;
    std::byte* const value = value_of(batch, port, row);
    fillers_[port]->pad(value);
    if (ports_[port].pairs) fillers_[port]->pad(value + fillers_[port]->bytes());
  }
}

/// From the last one on, so that the one before is still unmixed.
void PortFillers::mix(std::span<const std::uint64_t> positions, std::uint64_t index, std::uint64_t partner,
                      FillScratch& scratch, std::span<const Tensor> batch) const {
  fill_sample(index, partner, scratch, [&](std::size_t port) { return scratch.partner[port].data(); });
  for (std::size_t row = positions.size(); row-- > 0;) {
    const Mixer::Draw draw = mixer_->draw(positions[row]);
    for (std::size_t port = 0; port < fillers_.size(); ++port) {
      std::byte* const own = value_of(batch, port, row);
      const std::byte* const other = row > 0 ? value_of(batch, port, row - 1) : scratch.partner[port].data();
      if (ports_[port].use == PortUse::input) {
        mixer_->mix(draw, reinterpret_cast<const float*>(other), reinterpret_cast<float*>(own));
        continue;
      }
      const std::size_t bytes = fillers_[port]->bytes();
      std::memcpy(own + bytes, other, bytes);
      if (weights_[port] == nullptr) continue;
      auto* const weights = reinterpret_cast<float*>(own);
      weights[0] *= draw.own;
      weights[1] *= 1 - draw.own;
    }
  }
}

void PortFillers::repeat_labels(std::uint64_t rows, std::span<const Tensor> batch) const {
  for (std::size_t port = 0; port < fillers_.size(); ++port) {
    if (!ports_[port].pairs) continue;
    const std::size_t bytes = fillers_[port]->bytes();
    for (std::size_t row = 0; row < rows; ++row) {
      std::byte* const value = value_of(batch, port, row);
      if (weights_[port] != nullptr)
        std::memset(value + bytes, 0, bytes);
      else
        std::memcpy(value + bytes, value, bytes);
    }
  }
}

}  // namespace dtrain::io
