// The family `llama`: decoder-only transformers as in Llama, for sequences of tokens.
// A plain value; its layers are made anew at each call.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "models/layers/input.hpp"
#include "models/layers/layer.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::models {

/// Touvron et al. 2023 and Llama 3: rms_norm in front, rotary positions, keys and values for groups of heads, SwiGLU,
/// no biases. Queries, keys and values are one layer, and gate and up are one: "layers_0_qkv_proj",
/// "layers_0_gate_up_proj".
struct Llama {
  /// SmolLM2's 135M and 360M, Llama 3.2's 1B and Llama 3.1's 8B.
  enum class Preset : std::uint8_t { none, p135m, p360m, p1b, p8b };
  Preset preset = Preset::none;
  std::int64_t blocks = 12, heads = 12, kv_heads = 0, width = 768, hidden = 2048, vocabulary = 32000;
  Rotary rotary{};
  bool tied = true;
  double epsilon = 1e-5;
  double dropout = 0;  // of the attention's weights

  static constexpr const char *family = "llama", *help = "a transformer as in Llama, in place of `layers`";
  static constexpr const char* also_reads = "documents";  // beside the first input
  static TypePtr<Llama> table();
  /// For sequences of the first input; attentions read an input `documents` where there is one.
  std::vector<Layer> layers(std::span<const ModelInput>) const;
  /// The file config.json of Hugging Face's transformers.
  Document huggingface_config(std::span<const ModelInput>) const;
};

}  // namespace dtrain::models
