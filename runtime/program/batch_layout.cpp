#include "runtime/program/batch_layout.hpp"

namespace dtrain {

Tensor BatchLayout::value(std::size_t port, std::byte* carried) const {
  const Port& p = ports[port];
  return {p.desc, p.converted ? nullptr : carried + (p.offset - copied)};
}

Tensor BatchLayout::positions_in(std::byte* carried) const {
  return {{DType::u64, Shape{batch}}, carried + (positions - copied)};
}

BatchLayout batch_layout(const Graph& graph, std::span<const PortCarry> carry) {
  BatchLayout layout;
  layout.batch = graph.batch();
  const auto place = [&layout](std::size_t bytes) {
    const std::size_t at = layout.bytes;
    layout.bytes += (bytes + BatchLayout::alignment - 1) / BatchLayout::alignment * BatchLayout::alignment;
    return at;
  };
  for (const GraphInput& input : graph.inputs()) {
    const PortCarry how = carry.empty() ? PortCarry{} : carry[layout.ports.size()];
    layout.ports.push_back({input.name, graph.desc(input.value), 0, how.converted, 0, how.raw_bytes});
  }
  for (BatchLayout::Port& port : layout.ports)
    if (port.converted) port.offset = place(port.desc.bytes());
  layout.copied = layout.bytes;
  for (BatchLayout::Port& port : layout.ports)
    if (!port.converted) port.offset = place(port.desc.bytes());
  layout.positions = place(static_cast<std::size_t>(layout.batch) * sizeof(std::uint64_t));
  for (BatchLayout::Port& port : layout.ports)
    if (port.converted) port.raw = place(port.raw_bytes);
  return layout;
}

}  // namespace dtrain
