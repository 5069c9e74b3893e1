#include "launch/data/device_data.hpp"

#include <algorithm>
#include <cstring>

#include "runtime/device/host_buffer.hpp"
#include "runtime/ops/kernels.hpp"

namespace dtrain::launch {

std::unique_ptr<DeviceData> DeviceData::make(Device& device, Stream& stream, const io::Dataset& data,
                                             const io::LoaderOptions& options, double cache_mib, bool training) {
  if (!device.asynchronous()) return nullptr;
  const auto format = io::image_format(data, options.input, options.normalize);
  if (!format) return nullptr;
  const double mib = static_cast<double>(data.count()) * static_cast<double>(data.sample_bytes()) / (1 << 20);
  std::unique_ptr<DeviceData> made(
      new DeviceData(device, stream, data, *format, options, mib <= cache_mib, training && !options.augment.empty()));
  if (made->carry_ == io::Carry::rows) made->keep(data, stream);
  return made;
}

DeviceData::DeviceData(Device& device, Stream& stream, const io::Dataset& data, const io::HostImageFormat& format,
                       const io::LoaderOptions& options, bool whole, bool augmented)
    : device_(device),
      carry_(whole ? io::Carry::rows : io::Carry::bytes),
      layout_(io::raw_layout(carry_, data.sample_bytes(), options.micro_batch, augmented)),
      augmented_(augmented),
      format_(format.format) {
  const std::size_t floats = format.table.size() + format.scale.size() + format.offset.size();
  constants_ = Buffer(device, floats * sizeof(float));
  const HostBuffer pinned(device, floats * sizeof(float));
  auto* const host = static_cast<float*>(pinned.data());
  std::copy(
      format.offset.begin(), format.offset.end(),
      std::copy(format.scale.begin(), format.scale.end(), std::copy(format.table.begin(), format.table.end(), host)));
  device.copy(constants_.data(), host, constants_.bytes(), stream);
  stream.synchronize();
  format_.table = static_cast<const float*>(constants_.data());
  format_.scale = format_.table + format.table.size();
  format_.offset = format_.scale + format.scale.size();
  for (Buffer& raw : raw_) raw = Buffer(device, layout_.bytes);
}

/// Through a piece of pinned memory.
void DeviceData::keep(const io::Dataset& data, Stream& stream) {
  const std::size_t bytes = data.sample_bytes();
  const std::uint64_t piece = std::max<std::uint64_t>(1, (std::size_t{16} << 20) / bytes);
  set_ = Buffer(device_, data.count() * bytes);
  const HostBuffer pinned(device_, std::min(piece, data.count()) * bytes);
  auto* const host = static_cast<std::byte*>(pinned.data());
  std::vector<std::byte> scratch(bytes);
  for (std::uint64_t at = 0; at < data.count(); at += piece) {
    const std::uint64_t n = std::min(piece, data.count() - at);
    for (std::uint64_t i = 0; i < n; ++i) std::memcpy(host + i * bytes, data.sample(at + i, scratch.data()), bytes);
    device_.copy(set_.at(at * bytes), host, n * bytes, stream);
    stream.synchronize();
  }
}

void DeviceData::copy(const io::Batch& batch, int slot, Stream& stream) const {
  device_.copy(raw_[static_cast<std::size_t>(slot)].data(), batch.raw.data(), batch.raw.size(), stream);
}

void DeviceData::convert(int slot, Tensor sample, Stream& stream) const {
  const Buffer& raw = raw_[static_cast<std::size_t>(slot)];
  ImageBatch batch;
  batch.stored = reinterpret_cast<const std::uint8_t*>(carry_ == io::Carry::rows ? set_.at(0) : raw.at(layout_.stored));
  batch.rows = reinterpret_cast<const std::uint64_t*>(raw.at(layout_.rows));
  if (augmented_) batch.draws = reinterpret_cast<const ImageDraw*>(raw.at(layout_.draws));
  batch.n = sample.desc.shape[0];
  batch.out = sample.data;
  batch.out_type = sample.desc.dtype;
  device_.kernels().load_images(format_, batch, stream);
}

}  // namespace dtrain::launch
