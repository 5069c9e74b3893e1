#include "io/dataset/image_format.hpp"

#include "io/dataset/convert.hpp"
#include "io/dataset/loader.hpp"

namespace dtrain::io {

std::optional<HostImageFormat> image_format(const Dataset& data, std::size_t port, const Shape& input,
                                            const Normalize& normalize, StoredLayout layout) {
  const Converter fits(data, port, input, normalize, layout);
  const SampleOrder order = fit_input(data, port, input, layout);
  // Series stored channels first are turned by the host alone.
  const bool turned = input.rank() != 3 && order == SampleOrder::channels_first && input[0] != 1;
  if (data.port(port).type != StoredType::u8 || data.port(port).ragged() || turned) return std::nullopt;
  HostImageFormat out;
  ImageFormat& f = out.format;
  if (input.rank() == 3) {
    f.channels = static_cast<std::int32_t>(input[0]);
    f.height = f.stored_height = static_cast<std::int32_t>(input[1]);
    f.width = f.stored_width = static_cast<std::int32_t>(input[2]);
    f.stored_channels_last = order == SampleOrder::channels_last;
  } else {
    if (normalize.mean.size() > 1 || normalize.standard_deviation.size() > 1) return std::nullopt;
    f.width = f.stored_width = static_cast<std::int32_t>(input.elements());
  }
  for (int c = 0; c < f.channels; ++c) {
    const auto of = [c](const std::vector<double>& values, double none) {
      return values.empty() ? none : values[values.size() == 1 ? 0 : static_cast<std::size_t>(c)];
    };
    const double standard_deviation = of(normalize.standard_deviation, 1);
    const double scale = normalize.scale / standard_deviation, offset = -of(normalize.mean, 0) / standard_deviation;
    for (int byte = 0; byte < 256; ++byte) out.table.push_back(static_cast<float>(byte * scale + offset));
    out.scale.push_back(static_cast<float>(scale));
    out.offset.push_back(static_cast<float>(offset));
  }
  return out;
}

RawLayout raw_layout(Carry carry, std::size_t sample_bytes, std::int64_t micro_batch, bool augmented) {
  RawLayout at;
  if (carry == Carry::floats) return at;
  const auto m = static_cast<std::size_t>(micro_batch);
  const auto place = [&at](std::size_t bytes) {
    const std::size_t begin = at.bytes;
    at.bytes += (bytes + 255) / 256 * 256;
    return begin;
  };
  at.rows = place(m * sizeof(std::uint64_t));
  at.draws = place(augmented ? m * sizeof(ImageDraw) : 0);
  at.stored = place(carry == Carry::bytes ? m * sample_bytes : 0);
  return at;
}

}  // namespace dtrain::io
