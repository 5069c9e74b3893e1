// From a model's description to a Graph: layers in order, the loss at the end.
// Pure functions; the Graph they return owns everything.
#pragma once

#include "models/config.hpp"
#include "runtime/graph.hpp"

namespace dtrain::models {

/// Graph for micro batches of `batch` samples. A dense layer on [C, H, W] needs a flatten before it, except as the
/// first layer. Throws ShapeError that names the layer and the shapes.
Graph build(const ModelConfig&, std::int64_t batch);

/// Shape of one target: [] for labels, the output's shape for mean squared error.
Shape target_shape(const ModelConfig&);

}  // namespace dtrain::models
