// The family `vit`: encoders for images, which read them as sequences of patches.
// A plain value; its layers are made anew at each call.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/layers/input.hpp"
#include "models/layers/layer.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::models {

/// Dosovitskiy et al. 2021: a class token in front of the patches, learned positions, norms in front, exact gelu;
/// classes are made of the class token.
struct Vit {
  /// Tiny and small (Touvron et al. 2021), base and large, with patches of 16 x 16 pixels.
  enum class Preset : std::uint8_t { none, ti16, s16, b16, l16 };
  Preset preset = Preset::none;
  std::int64_t blocks = 12, heads = 12, width = 768, patch = 16;  // not read where there is a preset
  std::int64_t classes = 1000;
  double epsilon = 1e-12;  // of the norms
  double dropout = 0;      // of the patches, of the attention's weights and behind each half of a block

  static constexpr const char *family = "vit", *help = "a transformer for images, in place of `layers`";
  static TypePtr<Vit> table();
  /// For images of the first input.
  std::vector<Layer> layers(std::span<const ModelInput>) const;
  /// The file config.json of Hugging Face's transformers.
  Document huggingface_config(std::span<const ModelInput>) const;
};

}  // namespace dtrain::models
