// The family `resnet`: residual networks for images.
// A plain value; its layers are made anew at each call.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/layers/input.hpp"
#include "models/layers/layer.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::models {

/// He et al. 2016 in the form of v1.5: the stride of a bottleneck is in its 3x3 convolution. Layers are in the order in
/// which torchvision lists its parameters, and named after their place: "layer1_0_conv1".
struct ResNet {
  enum class Stem : std::uint8_t { imagenet, cifar };
  std::int64_t depth = 18;  // 18, 34 or 50
  Stem stem = Stem::imagenet;
  bool zero_init_residual = false;
  std::int64_t classes = 1000;

  static constexpr const char *family = "resnet", *help = "a residual network, in place of `layers`";
  static TypePtr<ResNet> table();
  /// For samples of the first input.
  std::vector<Layer> layers(std::span<const ModelInput>) const;
};

}  // namespace dtrain::models
