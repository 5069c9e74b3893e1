// The family `mlp`: dense layers, one behind the other.
// A plain value; its layers are made anew at each call.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/layers/input.hpp"
#include "models/layers/layer.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::models {

/// Dense layers of these widths, then one to the classes; an image is flattened first.
struct Mlp {
  std::vector<std::int64_t> widths{};
  Activation activation = Activation::relu;
  double dropout = 0;  // behind each width
  std::int64_t classes = 10;

  static constexpr const char *family = "mlp", *help = "dense layers, in place of `layers`";
  static TypePtr<Mlp> table();
  /// For samples of the first input.
  std::vector<Layer> layers(std::span<const ModelInput>) const;
};

}  // namespace dtrain::models
