// From a model's description to a Graph: layers in order, the loss at the end.
// Pure functions; the Graph they return owns everything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "models/config.hpp"
#include "runtime/error.hpp"
#include "runtime/graph.hpp"

namespace dtrain::models {

/// A layer (or the loss) that does not fit; `layer` is its index in ModelConfig::layers, their count for the loss.
class LayerError : public ShapeError {
 public:
  LayerError(std::size_t layer, const std::string& message) : ShapeError(message), layer_(layer) {}
  std::size_t layer() const noexcept { return layer_; }

 private:
  std::size_t layer_;
};

/// Graph for micro batches of `batch` samples. A dense layer on [C, H, W] needs a flatten before it, except as the
/// first layer. Throws LayerError that names the layer and the shapes.
Graph build(const ModelConfig&, std::int64_t batch);

/// Shape of one target: [] for labels, the output's shape for mean squared error.
Shape target_shape(const ModelConfig&);

}  // namespace dtrain::models
