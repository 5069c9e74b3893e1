// A model as users describe it: the shape of a sample, layers or a family, and a loss.
// Plain values; launch/ fills them from YAML, build.hpp turns them into a Graph.
#pragma once

#include <cstdint>
#include <vector>

#include "models/families/families.hpp"
#include "models/layers/layer.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::models {

enum class Loss : std::uint8_t { cross_entropy, mean_squared_error };
/// What batch norm takes means over while training: a micro batch of a rank, or those of all ranks at one place of the
/// step. `micro` depends on batch.micro, but not on the number of ranks.
enum class Statistics : std::uint8_t { micro, global };

struct ModelConfig {
  std::vector<std::int64_t> input;  // shape of a sample: see TensorDesc::sample()
  std::vector<Layer> layers;
  Loss loss = Loss::cross_entropy;
  double label_smoothing = 0;  // of cross_entropy
  Family family{};             // in place of layers
  Statistics statistics = Statistics::micro;
};

/// The fields of `model`; made at the first use.
TypePtr<ModelConfig> model_table();

}  // namespace dtrain::models
