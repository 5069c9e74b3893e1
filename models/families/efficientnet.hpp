// The family `efficientnet-b0`: a mobile network of inverted bottlenecks.
// A plain value; its layers are made anew at each call.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/layers/input.hpp"
#include "models/layers/layer.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::models {

/// Tan and Le 2019, B0, with torchvision's order of parameters.
struct EfficientNetB0 {
  double dropout = 0.2;
  double drop_path = 0.2;  // of the last block; it grows linearly from 0
  std::int64_t classes = 1000;

  static constexpr const char *family = "efficientnet-b0", *help = "EfficientNet-B0, in place of `layers`";
  static TypePtr<EfficientNetB0> table();
  /// For samples of the first input.
  std::vector<Layer> layers(std::span<const ModelInput>) const;
};

}  // namespace dtrain::models
