// The family `bert`: encoders as in BERT, for sequences of tokens.
// A plain value; its layers are made anew at each call.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/layers/input.hpp"
#include "models/layers/layer.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::models {

/// Devlin et al. 2019: learned positions, norms behind each half of a block, exact gelu. It ends in scores of every
/// token at each position, tied to the embedding (masked-language training); or in classes, of what tanh makes of the
/// first position; or in the mean over the positions, the embedding of a sentence.
struct Bert {
  /// BERT's base and large (uncased), and MiniLM of 6 layers (Wang et al. 2020).
  enum class Preset : std::uint8_t { none, base, large, minilm };
  Preset preset = Preset::none;
  std::int64_t blocks = 12, heads = 12, width = 768, hidden = 3072;  // not read where there is a preset
  std::int64_t context = 512;                                        // positions at most
  std::int64_t vocabulary = 30522;
  std::int64_t classes = 0;  // 0: none
  bool sentence = false;     // in place of tokens or classes
  double epsilon = 1e-12;    // of the norms
  double dropout = 0;        // of the embedding, of the attention's weights and behind each half of a block

  static constexpr const char *family = "bert", *help = "an encoder as in BERT, in place of `layers`";
  static constexpr const char* also_reads = "documents or segments";  // beside the first input
  static TypePtr<Bert> table();
  /// For sequences of the first input. An input `segments` of tokens 0 and 1 has an embedding of its own; of an input
  /// `documents` attentions, and the mean over positions, see padding.
  std::vector<Layer> layers(std::span<const ModelInput>) const;
  /// The file config.json of Hugging Face's transformers.
  Document huggingface_config(std::span<const ModelInput>) const;
};

}  // namespace dtrain::models
