#include "launch/data/device_data.hpp"

#include <algorithm>
#include <cstring>
#include <optional>

#include "runtime/device/host_buffer.hpp"
#include "runtime/ops/kernels.hpp"

namespace dtrain::launch {

namespace {

/// How a device makes input `i` of the set's bytes; nothing where it cannot.
std::optional<io::HostImageFormat> format_of(const LoadedSet& set, std::size_t i) {
  const io::PortOptions& port = set.options.ports[i];
  const TensorDesc& desc = set.options.layout.ports[i].desc;
  if (port.use != PortUse::input || port.source < 0 || port.follow >= 0 || desc.is_index()) return std::nullopt;
  if (set.training && (set.options.mix.on() || io::on_host(port.augment))) return std::nullopt;
  return io::image_format(*set.data, static_cast<std::size_t>(port.source), desc.sample(), port.normalize, port.layout);
}

bool augmented(const LoadedSet& set, std::size_t i) {
  return set.training && !set.options.ports[i].augment.empty();
}

std::size_t row_bytes(const LoadedSet& set, std::size_t i) {
  return set.data->port(static_cast<std::size_t>(set.options.ports[i].source)).row_bytes;
}

io::RawLayout raw_layout_of(const LoadedSet& set, std::size_t i) {
  const io::Carry carry = set.options.ports[i].carry;
  if (carry == io::Carry::floats) return {};
  return io::raw_layout(carry, row_bytes(set, i), set.options.layout.batch, augmented(set, i));
}

void choose_carry(const Device& device, const Graph& graph, std::span<LoadedSet> sets, double cache_mib) {
  if (!device.asynchronous()) return;
  for (std::size_t i = 0; i < graph.inputs().size(); ++i) {
    if (!std::all_of(sets.begin(), sets.end(), [i](const LoadedSet& set) { return format_of(set, i).has_value(); }))
      continue;
    for (LoadedSet& set : sets) {
      const double mib = static_cast<double>(set.data->count()) * static_cast<double>(row_bytes(set, i)) / (1 << 20);
      set.options.ports[i].carry = mib <= cache_mib ? io::Carry::rows : io::Carry::bytes;
    }
  }
  for (LoadedSet& set : sets) {
    std::vector<PortCarry> carry;
    for (std::size_t i = 0; i < graph.inputs().size(); ++i)
      carry.push_back({set.options.ports[i].carry != io::Carry::floats, raw_layout_of(set, i).bytes});
    set.options.layout = batch_layout(graph, carry);
  }
}

}  // namespace

std::vector<LoadedSet> load_sets(const RunConfig& config, const Graph& graph, const models::StoredPorts& stored,
                                 const io::Dataset& train, const io::Dataset* eval, int rank, int ranks,
                                 Device& device) {
  const auto loading = [&](const io::Dataset& data, DataUse use) {
    return LoadedSet{&data, loader_options(config, graph, stored, data, use, rank, ranks, &device),
                     use == DataUse::training};
  };
  std::vector<LoadedSet> sets{loading(train, DataUse::training)};
  if (eval != nullptr) sets.push_back(loading(*eval, DataUse::evaluation));
  choose_carry(device, graph, sets, config.data.device_cache_mib);
  return sets;
}

std::vector<BatchLayout> layouts_of(std::span<const LoadedSet> sets) {
  std::vector<BatchLayout> layouts;
  for (const LoadedSet& set : sets) layouts.push_back(set.options.layout);
  return layouts;
}

std::unique_ptr<DeviceData> DeviceData::make(Device& device, Stream& stream, const LoadedSet& set) {
  std::unique_ptr<DeviceData> made(new DeviceData(device, stream, set));
  return made->ports_.empty() ? nullptr : std::move(made);
}

DeviceData::DeviceData(Device& device, Stream& stream, const LoadedSet& set) : device_(device) {
  const BatchLayout& layout = set.options.layout;
  for (std::size_t i = 0; i < layout.ports.size(); ++i) {
    const io::PortOptions& options = set.options.ports[i];
    if (options.carry == io::Carry::floats) continue;
    Port& port = ports_.emplace_back();
    port.input = i;
    port.carry = options.carry;
    port.layout = raw_layout_of(set, i);
    port.raw = layout.ports[i].raw - layout.copied;
    port.augmented = augmented(set, i);
    put_constants(port, *format_of(set, i), stream);
    if (port.carry == io::Carry::rows) keep(port, *set.data, static_cast<std::size_t>(options.source), stream);
  }
}

void DeviceData::put_constants(Port& port, const io::HostImageFormat& format, Stream& stream) {
  port.format = format.format;
  const std::size_t floats = format.table.size() + format.scale.size() + format.offset.size();
  port.constants = Buffer(device_, floats * sizeof(float));
  const HostBuffer pinned(device_, floats * sizeof(float));
  auto* const host = static_cast<float*>(pinned.data());
  std::copy(
      format.offset.begin(), format.offset.end(),
      std::copy(format.scale.begin(), format.scale.end(), std::copy(format.table.begin(), format.table.end(), host)));
  device_.copy(port.constants.data(), host, port.constants.bytes(), stream);
  stream.synchronize();
  port.format.table = static_cast<const float*>(port.constants.data());
  port.format.scale = port.format.table + format.table.size();
  port.format.offset = port.format.scale + format.scale.size();
}

/// Through a piece of pinned memory.
void DeviceData::keep(Port& port, const io::Dataset& data, std::size_t source, Stream& stream) {
  const std::size_t bytes = data.port(source).row_bytes;
  const std::uint64_t piece = std::max<std::uint64_t>(1, (std::size_t{16} << 20) / bytes);
  port.set = Buffer(device_, data.count() * bytes);
  const HostBuffer pinned(device_, std::min(piece, data.count()) * bytes);
  auto* const host = static_cast<std::byte*>(pinned.data());
  std::vector<std::byte> scratch(bytes);
  for (std::uint64_t at = 0; at < data.count(); at += piece) {
    const std::uint64_t n = std::min(piece, data.count() - at);
    for (std::uint64_t i = 0; i < n; ++i)
      std::memcpy(host + i * bytes, data.row(source, at + i, scratch.data()).data, bytes);
    device_.copy(port.set.at(at * bytes), host, n * bytes, stream);
    stream.synchronize();
  }
}

void DeviceData::convert(const InputSlot& slot, Stream& stream) const {
  for (const Port& port : ports_) {
    const std::byte* const raw = slot.carried + port.raw;
    const std::byte* const set = static_cast<const std::byte*>(port.set.data());
    ImageBatch batch;
    batch.stored =
        reinterpret_cast<const std::uint8_t*>(port.carry == io::Carry::rows ? set : raw + port.layout.stored);
    batch.rows = reinterpret_cast<const std::uint64_t*>(raw + port.layout.rows);
    if (port.augmented) batch.draws = reinterpret_cast<const ImageDraw*>(raw + port.layout.draws);
    const Tensor& value = slot.inputs[port.input];
    batch.n = value.desc.batch();
    batch.out = value.data;
    batch.out_type = value.desc.dtype;
    device_.kernels().load_images(port.format, batch, stream);
  }
}

}  // namespace dtrain::launch
