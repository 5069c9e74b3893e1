#include "io/dataset/convert.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "io/hdf5/stored.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

std::vector<std::int64_t> without_ones(const Shape& shape) {
  std::vector<std::int64_t> extents;
  for (const auto e : shape.extents()) {
    if (e != 1) extents.push_back(e);
  }
  return extents;
}

/// Written as [H, W, C], very likely: few channels at the end, and none of the others so small.
bool looks_turned(const Shape& sample) {
  const auto extents = sample.extents();
  const std::int64_t last = extents.back();
  return (last == 1 || last == 3 || last == 4) &&
         std::all_of(extents.begin(), extents.end() - 1, [](std::int64_t e) { return e > 4; });
}

/// [C, H, W] of [H, W, C].
Shape channels_first_of(const Shape& sample) {
  std::vector<std::int64_t> extents{sample.extents().back()};
  extents.insert(extents.end(), sample.extents().begin(), sample.extents().end() - 1);
  return Shape{std::span<const std::int64_t>(extents)};
}

std::string layout_setting(const DataPort& port) {
  return fmt::format("data.{}.{}.layout", port.use == PortUse::input ? "inputs" : "targets", port.name);
}

/// [C, H, W] or [C, D, H, W]: batches lie channels last.
bool is_image(const Shape& sample) {
  return sample.rank() >= 3;
}

}  // namespace

std::string port_setting(const DataPort& port, std::string_view setting) {
  if (port.use == PortUse::input && port.name == "input") return fmt::format("data.{}", setting);
  return fmt::format("data.{}.{}.{}", port.use == PortUse::input ? "inputs" : "targets", port.name, setting);
}

std::string model_name(const DataPort& port) {
  if (port.use != PortUse::input)
    return fmt::format("the {} {}", port.use == PortUse::target ? "target" : "weight", port.name);
  return port.name == "input" ? "model.input" : "model.inputs." + port.name;
}

SampleOrder fit_input(const Dataset& data, std::size_t index, const Shape& input, StoredLayout layout) {
  const DataPort& port = data.port(index);
  // What the file says of itself is about its own extents.
  const bool of_file =
      layout == StoredLayout::unknown && !port.ragged() && is_image(input) && port.row.rank() == input.rank();
  if (of_file) layout = port.layout;
  std::vector<std::int64_t> held;
  if (port.ragged() && input.rank() > 0) held.push_back(input[0]);
  held.insert(held.end(), port.row.extents().begin(), port.row.extents().end());
  const std::string name = fmt::format("{}: {}", data.files()[0], port.key);
  if (port.ragged() && (input.rank() > 2 || layout == StoredLayout::channels_first)) {
    throw ShapeError(fmt::format("{} has samples of different lengths, but {} is {}; expected [length, channels]", name,
                                 model_name(port), input.str()));
  }
  if (port.ragged() && port.use == PortUse::target && input.rank() < 2) {
    throw ShapeError(
        fmt::format("{} has samples of different lengths, but {} is {}, without positions, which the model gives "
                    "whole; expected a row of {} a sample",
                    name, model_name(port), input.str(), input.elements()));
  }
  const Shape stored{std::span<const std::int64_t>(held)};
  const auto extents = input.extents();
  // With one channel, or one position, both orders are the same bytes.
  const bool as_written = without_ones(stored) == without_ones(input);
  if (is_image(input)) {
    std::vector<std::int64_t> last(extents.begin() + 1, extents.end());
    last.push_back(extents[0]);
    const Shape turned{std::span<const std::int64_t>(last)};
    const bool as_turned = without_ones(stored) == without_ones(turned);
    if (as_written && input[0] == 1) return SampleOrder::channels_last;
    if (layout == StoredLayout::unknown && (as_written || as_turned)) {
      if (looks_turned(input)) {
        throw ShapeError(fmt::format(
            "{} is {}, which dtrain reads as {} channels of {}; if it is meant as [height, width, channels], write {}, "
            "and files of either order are read; else say {}: channels_first, or channels_last",
            model_name(port), input.str(), input[0], fmt::join(extents.subspan(1), " x "),
            channels_first_of(input).str(), layout_setting(port)));
      }
      const bool exactly = stored == input, exactly_turned = stored == turned;
      const bool one_position = input.elements() == input[0];
      if (as_written && as_turned && exactly == exactly_turned && !one_position) {
        throw ShapeError(
            fmt::format("{} holds samples of shape {}, which may be {} stored channels first or channels "
                        "last; say {}: channels_first, or channels_last",
                        name, stored.str(), input.str(), layout_setting(port)));
      }
      if (exactly_turned && !exactly) return SampleOrder::channels_last;
      if (as_written) return SampleOrder::channels_first;
    }
    if (layout == StoredLayout::channels_first && as_written) return SampleOrder::channels_first;
    if (layout == StoredLayout::channels_last && as_turned) return SampleOrder::channels_last;
  } else if (input.rank() == 2) {
    const bool turned = without_ones(stored) == without_ones(Shape{input[1], input[0]});
    const bool same = input[0] == 1 || input[1] == 1;
    if (layout == StoredLayout::unknown && as_written && turned && !same && !port.ragged()) {
      throw ShapeError(
          fmt::format("{} holds samples of shape {}, which may be {} positions of {} channels or {} "
                      "channels of {} positions; say {}: channels_last, or channels_first",
                      name, stored.str(), input[0], input[1], input[1], input[0], layout_setting(port)));
    }
    if (as_written && (layout != StoredLayout::channels_first || same)) return SampleOrder::plain;
    if (turned && layout == StoredLayout::channels_first) return SampleOrder::channels_first;
    if (turned && layout == StoredLayout::unknown) {
      throw ShapeError(
          fmt::format("{} holds samples of shape {}, but {} is {}, which is [length, channels]; if the "
                      "file holds [channels, length], say {}: channels_first",
                      name, stored.str(), model_name(port), input.str(), layout_setting(port)));
    }
  } else if (as_written || (input.rank() == 1 && stored.elements() == input[0])) {
    return SampleOrder::plain;
  }
  if (port.use == PortUse::target && input.rank() == 1) {
    throw ShapeError(
        fmt::format("{} has {} values a sample, but the model gives {}", name, stored.elements(), input.elements()));
  }
  const char* const by = of_file ? "by its attribute layout" : "to be";
  const std::string said =
      layout == StoredLayout::unknown
          ? ""
          : fmt::format(", which is said {} stored {}", by,
                        layout == StoredLayout::channels_first ? "channels_first" : "channels_last");
  throw ShapeError(fmt::format("{} holds samples of shape {}, but {} is {}{}", name, stored.str(), model_name(port),
                               input.str(), said));
}

StoredChannels stored_channels(const Dataset& data, std::size_t index, const Shape& input, StoredLayout layout) {
  const SampleOrder order = fit_input(data, index, input, layout);
  const DataPort& port = data.port(index);
  const auto values = static_cast<std::size_t>(std::max<std::int64_t>(1, port.row.elements()));
  StoredChannels stored;
  if (input.rank() == 2) {
    stored = {static_cast<std::size_t>(input[1]), 1, order == SampleOrder::plain};
  } else if (is_image(input) || is_image(port.row)) {
    stored.channels = static_cast<std::size_t>((is_image(input) ? input : port.row)[0]);
    stored.last = order == SampleOrder::channels_last;
  } else if (input.rank() == 1 && !port.ragged() && input[0] <= StoredChannels::most_columns) {
    stored.channels = values;
  }
  stored.pixels = values / stored.channels;
  return stored;
}

Converter::Converter(const Dataset& data, std::size_t index, const Shape& input, const Normalize& normalize,
                     StoredLayout layout)
    : type_(data.port(index).type) {
  const SampleOrder order = fit_input(data, index, input, layout);
  const DataPort& port = data.port(index);
  // Where the model flattens at once, channels are those of the stored image.
  const Shape& image = is_image(input) ? input : port.row;
  const auto elements = static_cast<std::size_t>(input.elements());
  const std::size_t entries = std::max(normalize.mean.size(), normalize.standard_deviation.size());
  if (port.ragged()) length_ = static_cast<std::size_t>(input[0]);
  if (input.rank() == 2 && (entries <= 1 || static_cast<std::int64_t>(entries) == input[1])) {
    channels_ = static_cast<std::size_t>(input[1]);
    wanted_channels_last_ = true;
    stored_channels_last_ = order == SampleOrder::plain;
  } else {
    channels_ = is_image(image) ? static_cast<std::size_t>(image[0]) : 1;
    wanted_channels_last_ = is_image(input);
    stored_channels_last_ = order == SampleOrder::channels_last;
    if (entries > 1 && channels_ != entries && !is_image(image)) {
      channels_ = elements == entries && !port.ragged() ? entries : 0;  // features: one entry each
    }
  }
  const auto fits = [&](std::size_t n) { return n <= 1 || n == channels_; };
  if (channels_ == 0 || !fits(normalize.mean.size()) || !fits(normalize.standard_deviation.size())) {
    throw ConfigError(
        fmt::format("{}: mean and standard_deviation need one entry, or one for each channel of {}; they have "
                    "{} and {}",
                    port_setting(port, "normalize"), (input.rank() == 2 ? input : image).str(), normalize.mean.size(),
                    normalize.standard_deviation.size()));
  }
  pixels_ = elements / channels_;
  for (std::size_t c = 0; c < channels_; ++c) {
    const auto of = [c](const std::vector<double>& values, double none) {
      return values.empty() ? none : values[values.size() == 1 ? 0 : c];
    };
    const double standard_deviation = of(normalize.standard_deviation, 1), mean = of(normalize.mean, 0);
    if (!(standard_deviation > 0) || !std::isfinite(standard_deviation) || !std::isfinite(mean) ||
        !std::isfinite(normalize.scale)) {
      throw ConfigError(fmt::format("{}: scale, mean and standard_deviation must be finite, standard_deviation above 0",
                                    port_setting(port, "normalize")));
    }
    scale_.push_back(normalize.scale / standard_deviation);
    offset_.push_back(-mean / standard_deviation);
    identity_ = identity_ && scale_[c] == 1 && offset_[c] == 0;
    same_for_all_ = same_for_all_ && scale_[c] == scale_[0] && offset_[c] == offset_[0];
    if (size_of(type_) != 1) continue;
    for (int byte = 0; byte < 256; ++byte) {
      const double value = type_ == StoredType::i8 ? static_cast<std::int8_t>(byte) : byte;
      table_.push_back(static_cast<float>(value * scale_[c] + offset_[c]));
    }
  }
  // One run over everything where neither order nor channel matters.
  if (same_for_all_ && (channels_ == 1 || stored_channels_last_ == wanted_channels_last_)) {
    pixels_ *= channels_;
    channels_ = 1;
  }
}

std::int64_t Converter::convert(const std::byte* stored, float* out, std::size_t pixels) const {
  const std::size_t in_pixel = stored_channels_last_ ? channels_ : 1, in_channel = stored_channels_last_ ? 1 : pixels_;
  const std::size_t out_pixel = wanted_channels_last_ ? channels_ : 1,
                    out_channel = wanted_channels_last_ ? 1 : pixels_;
  if (!table_.empty()) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(stored);
    for (std::size_t c = 0; c < channels_; ++c) {
      const float* table = table_.data() + 256 * c;
      const unsigned char* in = bytes + c * in_channel;
      float* to = out + c * out_channel;
      if (in_pixel == 1 && out_pixel == 1) {
        for (std::size_t p = 0; p < pixels; ++p) to[p] = table[in[p]];
      } else {
        for (std::size_t p = 0; p < pixels; ++p) to[p * out_pixel] = table[in[p * in_pixel]];
      }
    }
    return -1;
  }
  return with_stored_type(type_, [&](auto tag) -> std::int64_t {
    using T = decltype(tag);
    // The sum of value * 0 is 0 unless a value is infinite or not a number: no branch in the loop.
    double poison = 0;
    for (std::size_t c = 0; c < channels_; ++c) {
      const std::byte* in = stored + c * in_channel * sizeof(T);
      float* to = out + c * out_channel;
      const double scale = scale_[c], offset = offset_[c];
      const std::size_t in_step = in_pixel * sizeof(T);
      if (std::is_same_v<T, float> && identity_ && in_pixel == 1 && out_pixel == 1) {
        std::memcpy(to, in, pixels * sizeof(float));
        float sum[8]{};
        std::size_t p = 0;
        for (; p + 8 <= pixels; p += 8) {
          for (std::size_t k = 0; k < 8; ++k) sum[k] += to[p + k] * 0.0f;
        }
        for (; p < pixels; ++p) sum[0] += to[p] * 0.0f;
        for (const float s : sum) poison += static_cast<double>(s);
        continue;
      }
      for (std::size_t p = 0; p < pixels; ++p) {
        T value;
        std::memcpy(&value, in + p * in_step, sizeof value);
        const auto converted = static_cast<float>(static_cast<double>(value) * scale + offset);
        to[p * out_pixel] = converted;
        if constexpr (stored_float<T>) poison += static_cast<double>(converted) * 0.0;
      }
    }
    if (poison == 0) return -1;
    for (std::size_t i = 0; i < channels_ * pixels; ++i) {
      const double value = stored_number(type_, stored + i * sizeof(T));
      if (!std::isfinite(value) || std::abs(value) > static_cast<double>(std::numeric_limits<float>::max())) {
        return static_cast<std::int64_t>(i);
      }
    }
    return 0;  // finite as stored, not after normalization
  });
}

}  // namespace dtrain::io
