// The families: well-known networks as lists of layers with readable names.
// Pure functions that return plain values.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/layers/config.hpp"

namespace dtrain::models {

/// The layers of the family, for samples of this shape; {} where there is none. In the order in which torchvision lists
/// the parameters of its models, and with their counts. Layers are named after their place: "layer1_0_conv1".
std::vector<Layer> family_layers(const Family&, std::span<const std::int64_t> input);

}  // namespace dtrain::models
