// Plain description of a model as users write it: a list of layers and a loss.
// Values only; launch/ fills it from YAML, models/ turns it into a Graph.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "runtime/op.hpp"

namespace dtrain::models {

struct Conv2dLayer {
  std::int64_t filters = 0;
  std::array<std::int64_t, 2> kernel{0, 0}, stride{1, 1}, padding{0, 0};
  bool bias = true;
  Activation activation = Activation::none;
};
struct MaxPool2dLayer {
  std::array<std::int64_t, 2> size{2, 2};
  std::array<std::int64_t, 2> stride{0, 0};  // 0: the size
};
struct DenseLayer {
  std::int64_t units = 0;
  bool bias = true;
  Activation activation = Activation::none;
};
struct FlattenLayer {};
struct ReluLayer {};
struct DropoutLayer {
  double rate = 0.5;
};

using LayerKind = std::variant<Conv2dLayer, MaxPool2dLayer, DenseLayer, FlattenLayer, ReluLayer, DropoutLayer>;

struct Layer {
  std::string name;  // empty: the kind with a number, "conv2d_1"
  LayerKind kind;
  int line = 0;  // where it stands in the file, for messages; 0: nowhere
};

enum class Loss : std::uint8_t { cross_entropy, mean_squared_error };

struct ModelConfig {
  std::vector<std::int64_t> input;  // shape of a sample: [C, H, W] or [features]
  std::vector<Layer> layers;
  Loss loss = Loss::cross_entropy;
};

}  // namespace dtrain::models
