// From a model's description to a Graph: layers in order, joined by their names, outputs and losses at the end.
// Pure functions; the Graph they return owns everything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "models/model/ports.hpp"
#include "runtime/graph/graph.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::models {

/// A layer (or the loss) that does not fit; `layer` is its index in the list of layers (of the family's, where there is
/// a family), their count for the loss.
class LayerError : public ShapeError {
 public:
  LayerError(std::size_t layer, const std::string& message) : ShapeError(message), layer_(layer) {}
  std::size_t layer() const noexcept { return layer_; }

 private:
  std::size_t layer_;
};

/// A graph with losses trains and evaluates; one with outputs alone predicts; one that continues texts has caches too.
enum class BuildFor : std::uint8_t { training, prediction };

/// A pass of generation: so many new tokens of each sequence, behind up to `capacity` tokens in all.
struct Generation {
  std::int64_t positions = 1, capacity = 0;
  static constexpr const char* lengths = "lengths";  // the input, i32 [N]: how many tokens came before
};

/// Graph for micro batches of `batch` samples whose layers compute in f32, bf16 or f16: casts stand behind the inputs
/// of numbers, and before the outputs of predictions. A dense layer on [C, H, W] needs a flatten before it, except
/// directly on an input. Its inputs are those of ports_of(), in the same order; for predictions only the inputs of
/// layers.
///
/// Nodes are in the order of the layers, and so are parameters: of each layer first its weight, then its bias. A layer
/// may become several nodes: `conv_silu` behind `conv` for an activation that no kernel applies inside, `norm_moments`
/// and `norm_sum` before a `norm` of all ranks; parameters carry the layer's name all the same. With adapters (Lora)
/// their parameters, and layers that are trained whole, are the only ones that are not frozen.
///
/// Throws LayerError that names the layer and the shapes, and ConfigError for what model.lora says.
Graph build(const ModelConfig&, std::int64_t batch, DType compute, const StoredPorts& = {},
            BuildFor = BuildFor::training);

/// Of a language model: one input of tokens, whose layers treat each position by itself or attend to those before it.
/// The output has [N, positions, vocabulary] logits in f32; caches are states. Equal `batch` and capacity give equal
/// states, so that graphs of other numbers of positions continue the same texts. Throws LayerError.
Graph build_generation(const ModelConfig&, std::int64_t batch, DType compute, const Generation&);

}  // namespace dtrain::models
