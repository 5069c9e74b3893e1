// A BatchLayout says where each of a graph's inputs lies in a micro batch. Loader, Feed and Program are given the same
// one, so that one copy takes a batch from the loader's memory to the device's; plain data, for any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/graph/graph.hpp"

namespace dtrain {

/// How an input of the graph travels: as its value, or as something that the device makes the value of.
struct PortCarry {
  bool converted = false;
  std::size_t raw_bytes = 0;  // of what travels in its place
};

/// [0, copied) values that the device makes | [copied, bytes) what a loader fills: positions, values that travel as
/// they are, and last what travels in place of a value. Layouts of one graph that convert the same inputs differ only
/// in this last part. Offsets are in bytes, multiples of `alignment`.
struct BatchLayout {
  static constexpr std::size_t alignment = 256;
  struct Port {
    std::string name;
    TensorDesc desc;         // as the graph reads it
    std::size_t offset = 0;  // of the value
    bool converted = false;
    std::size_t raw = 0, raw_bytes = 0;  // of what the value is made of, where it is converted
  };
  std::vector<Port> ports;    // as Graph::inputs()
  std::int64_t batch = 0;     // samples
  std::size_t positions = 0;  // of u64 [batch]: the stream position of each sample
  std::size_t copied = 0;
  std::size_t bytes = 0;

  std::size_t carried_bytes() const noexcept { return bytes - copied; }
  /// Views of a loader's memory of carried_bytes(). No data where a value does not travel.
  Tensor value(std::size_t port, std::byte* carried) const;
  Tensor positions_in(std::byte* carried) const;
  std::byte* raw_in(std::size_t port, std::byte* carried) const { return carried + (ports[port].raw - copied); }
};

/// `carry`: as Graph::inputs(); empty: every value travels as it is.
BatchLayout batch_layout(const Graph&, std::span<const PortCarry> carry = {});

}  // namespace dtrain
