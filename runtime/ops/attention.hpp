// The op `attention`: softmax(Q K^T) V of several heads, with rotary positions and documents inside.
// A plain value; what a device makes of it is in runtime/cpu/ops and runtime/cuda/ops.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "runtime/ops/shape.hpp"

namespace dtrain {

/// Rotary positions (Su et al. 2021) of queries and keys. Channel c of a head turns together with channel c + size / 2,
/// by position / theta^(2 c / size): the halves of Hugging Face's models (GPT-NeoX, Llama), not neighbours.
struct Rotary {
  /// Llama 3: waves longer than context / low are `factor` times as long, those shorter than context / high stay, and
  /// those between are mixed.
  struct Scaling {
    double factor = 8, low_frequency_factor = 1, high_frequency_factor = 4;
    std::int64_t original_context = 8192;
  };
  double theta = 10000;
  std::optional<Scaling> scaling{};

  /// Radians a position, of each of the first size / 2 channels of a head.
  std::vector<double> frequencies(std::int64_t size) const;
};

/// Inputs: one value [N, positions..., (heads + 2 kv_heads) size] that holds queries, keys and values in this order
/// (GPT-2's), or these three apart; then, if there, documents [N, positions...] in i32: see attention_math.hpp. Output:
/// [N, positions..., heads size]. Query head h reads key and value head h / (heads / kv_heads). saved: log of the sum
/// of e^score of each position and head (in an order of the device's choice), so that memory is linear in the
/// positions. Dropout of the weights draws by (seed, Purpose::dropout, id, stream position of the sample, head, query,
/// key): see attention_math.hpp.
struct Attention {
  std::int64_t heads = 1, kv_heads = 0;  // 0: as many as heads
  bool causal = true;
  std::int64_t window = 0;  // a position sees those less than this away; 0: all
  std::optional<Rotary> rotary{};
  double dropout = 0;
  double scale = 0;      // of the scores; 0: 1 / sqrt(size)
  std::uint32_t id = 0;  // distinct a layer of a model, where dropout draws

  static constexpr std::int64_t largest_size = 256;  // of a head

  std::string_view name() const { return "attention"; }
  OpShape infer(std::span<const TensorDesc> in) const;
  static std::vector<OpKind<Attention>> kinds();
};

/// Where an Attention finds what it reads, of inputs that infer() accepts.
struct AttentionLayout {
  /// Heads side by side from a channel on, in rows of `row` channels of input `input`.
  struct Part {
    std::size_t input;
    std::int64_t channel, row;
  };
  AttentionLayout(const Attention&, std::span<const TensorDesc> in);

  std::int64_t samples, positions, heads, kv_heads, size;
  float scale;
  std::array<Part, 3> parts;  // queries, keys, values
  int documents = -1;         // input; -1: none

  // The CPU works on blocks of so many queries and keys, in float32, and on a block of keys for a group of queries
  // before the next one. A thread has copies of the keys and values of a head and their gradients, padded to whole
  // panels: what it needs is linear in the positions.
  static constexpr std::int64_t query_block = 96, query_group = 2 * query_block, key_block = 128, panel = 16;
  static constexpr std::int64_t most_threads = 64;  // that have a head at the same time
  std::int64_t padded_size() const { return (size + panel - 1) / panel * panel; }
  std::int64_t padded_positions() const { return (positions + panel - 1) / panel * panel; }
  std::int64_t thread_floats() const {
    return (5 * padded_positions() + 3 * query_group) * padded_size() + 2 * key_block * query_block + 2 * query_group;
  }
  /// What a GPU's library may take of workspace: gradients of queries, and of the keys and values of each query head,
  /// in float32, and some numbers a row. One that keeps a square of scores is refused but for few positions.
  std::size_t library_bytes() const {
    return static_cast<std::size_t>(samples * positions * heads * (12 * size + 16)) + (std::size_t{1} << 20);
  }
};

}  // namespace dtrain
