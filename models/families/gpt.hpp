// The family `gpt`: decoder-only transformers as in GPT-2, for sequences of tokens.
// A plain value; its layers are made anew at each call.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/layers/input.hpp"
#include "models/layers/layer.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::models {

/// Radford et al. 2019: learned positions, norms in front, gelu by tanh, the output tied to the embedding. Layers are
/// named after their parameters in OpenAI's release, "h_0_attn_c_attn".
struct Gpt {
  enum class Preset : std::uint8_t { none, gpt2, gpt2_medium, gpt2_large, gpt2_xl };
  Preset preset = Preset::none;
  std::int64_t blocks = 12, heads = 12, width = 768;  // not read where there is a preset
  std::int64_t context = 1024;                        // positions at most
  std::int64_t vocabulary = 50257;
  double dropout = 0;  // of the embedding, of the attention's weights and behind each half of a block

  static constexpr const char *family = "gpt", *help = "a transformer as in GPT-2, in place of `layers`";
  static constexpr const char* also_reads = "documents";  // beside the first input
  static TypePtr<Gpt> table();
  /// For sequences of the first input; attentions read an input `documents` where there is one.
  std::vector<Layer> layers(std::span<const ModelInput>) const;
  /// The file config.json of Hugging Face's transformers.
  Document huggingface_config(std::span<const ModelInput>) const;
};

}  // namespace dtrain::models
