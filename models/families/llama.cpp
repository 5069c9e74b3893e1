#include "models/families/llama.hpp"

#include <utility>

#include <fmt/format.h>

#include "models/families/layer_list.hpp"
#include "runtime/ops/kinds.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::models {
namespace {

Dense projection(std::int64_t units) {
  return {.units = units, .bias = false, .init = {Init{Init::Kind::normal, transformer_deviation}, {}}};
}

Llama with_preset(Llama net) {
  const auto sized = [&](std::int64_t blocks, std::int64_t heads, std::int64_t kv_heads, std::int64_t width,
                         std::int64_t hidden, std::int64_t vocabulary, double theta, bool tied) {
    net.blocks = blocks;
    net.heads = heads;
    net.kv_heads = kv_heads;
    net.width = width;
    net.hidden = hidden;
    net.vocabulary = vocabulary;
    net.rotary.theta = theta;
    net.tied = tied;
  };
  switch (net.preset) {
    case Llama::Preset::p135m:
      sized(30, 9, 3, 576, 1536, 49152, 100000, true);
      break;
    case Llama::Preset::p360m:
      sized(32, 15, 5, 960, 2560, 49152, 100000, true);
      break;
    case Llama::Preset::p1b:
      sized(16, 32, 8, 2048, 8192, 128256, 500000, true);
      net.rotary.scaling = Rotary::Scaling{.factor = 32};
      break;
    case Llama::Preset::p8b:
      sized(32, 32, 8, 4096, 14336, 128256, 500000, false);
      net.rotary.scaling = Rotary::Scaling{.factor = 8};
      break;
    case Llama::Preset::none:
      break;
  }
  return net;
}

}  // namespace

TypePtr<Llama> Llama::table() {
  Table<Llama> llama("Decoder-only transformer (Touvron et al. 2023, Llama 3): published sizes, or any size.");
  llama
      .add("preset", &Llama::preset,
           choice<Llama::Preset>({{"none", Preset::none},
                                  {"135m", Preset::p135m},
                                  {"360m", Preset::p360m},
                                  {"1b", Preset::p1b},
                                  {"8b", Preset::p8b}}),
           "all sizes of a published model: SmolLM2 135M or 360M, Llama 3.2 1B, Llama 3.1 8B")
      .shown_if([](const Llama& net) { return net.preset != Preset::none; });
  const auto no_preset = [](const Llama& net) { return net.preset == Preset::none; };
  llama.add("layers", &Llama::blocks, at_least(1), "blocks of attention and a gated dense part").shown_if(no_preset);
  llama.add("heads", &Llama::heads, at_least(1), "of the queries; they divide width").shown_if(no_preset);
  llama.add("kv_heads", &Llama::kv_heads, at_least(0), "of keys and values; they divide heads; 0: heads")
      .shown_if(no_preset);
  llama.add("width", &Llama::width, at_least(1), "channels of each position").shown_if(no_preset);
  llama.add("hidden", &Llama::hidden, at_least(1), "channels of the dense part, behind its gate").shown_if(no_preset);
  llama.add("vocabulary", &Llama::vocabulary, at_least(1), "tokens").shown_if(no_preset);
  llama
      .add<double>(
          "rotary_theta", [](const Llama& net) { return net.rotary.theta; },
          [](Llama& net, double theta) { net.rotary.theta = theta; }, number({.least = 1, .above_least = true}),
          "base of the frequencies of the positions")
      .old_spelling("rope_theta")
      .shown_if(no_preset);
  llama.add("tied", &Llama::tied, boolean(), "whether the output has the embedding's weight").shown_if(no_preset);
  for (const char* size : {"layers", "heads", "kv_heads", "width", "hidden", "vocabulary", "rotary_theta", "tied"})
    llama.exclusive("preset", size);
  llama.add("epsilon", &Llama::epsilon, number({.least = 0}), "of the norms");
  llama.add("dropout", &Llama::dropout, fraction(), "of the attention's weights");
  return shared(std::move(llama));
}

std::vector<Layer> Llama::layers(std::span<const ModelInput> inputs) const {
  Llama net = with_preset(*this);
  if (net.kv_heads == 0) net.kv_heads = net.heads;
  if (net.width % net.heads != 0 || net.heads % net.kv_heads != 0)
    throw ShapeError(
        fmt::format("llama: a width of {}, {} heads and {} kv_heads; expected heads that divide the width, "
                    "and kv_heads that divide heads",
                    net.width, net.heads, net.kv_heads));
  const std::int64_t size = net.width / net.heads;
  LayerList out;
  const auto add = [&](const std::string& name, const std::string& past) { out.add(name, Add{}, {out.last(), past}); };
  out.add("embed_tokens", Embedding{net.vocabulary, net.width, transformer_deviation});
  for (std::int64_t i = 0; i < net.blocks; ++i) {
    const std::string block = fmt::format("layers_{}_", i);
    const std::string past = out.last();
    out.add(block + "input_norm", RmsNorm{net.epsilon});
    out.add(block + "qkv_proj", projection((net.heads + 2 * net.kv_heads) * size));
    out.add(block + "attn",
            Attention{.heads = net.heads, .kv_heads = net.kv_heads, .rotary = net.rotary, .dropout = net.dropout},
            with_documents(out.last(), inputs));
    out.add(block + "o_proj", projection(net.width));
    add(block + "attn_add", past);
    const std::string middle = out.last();
    out.add(block + "post_attn_norm", RmsNorm{net.epsilon});
    out.add(block + "gate_up_proj", projection(2 * net.hidden));
    out.add(block + "gate", Gated{});
    out.add(block + "down_proj", projection(net.width));
    add(block + "mlp_add", middle);
  }
  out.add("norm", RmsNorm{net.epsilon});
  const Dense head = projection(net.vocabulary);
  if (net.tied)
    out.add_tied("lm_head", head, "embed_tokens");
  else
    out.add("lm_head", head);
  return out.take();
}

Document Llama::huggingface_config(std::span<const ModelInput> inputs) const {
  const Llama net = with_preset(*this);
  Document rope = Document::map();
  rope.set("rope_type", Document::string(net.rotary.scaling ? "llama3" : "default"));
  if (const auto& scaling = net.rotary.scaling) {
    rope.set("factor", Document::number(scaling->factor))
        .set("low_freq_factor", Document::number(scaling->low_frequency_factor))
        .set("high_freq_factor", Document::number(scaling->high_frequency_factor))
        .set("original_max_position_embeddings", Document::integer(scaling->original_context));
  }
  Document config = Document::map();
  config.set("architectures", Document::list({Document::string("LlamaForCausalLM")}))
      .set("model_type", Document::string("llama"))
      .set("attention_dropout", Document::number(net.dropout))
      .set("hidden_act", Document::string("silu"))
      .set("hidden_size", Document::integer(net.width))
      .set("intermediate_size", Document::integer(net.hidden))
      .set("max_position_embeddings", Document::integer(inputs[0].shape[0]))
      .set("num_attention_heads", Document::integer(net.heads))
      .set("num_hidden_layers", Document::integer(net.blocks))
      .set("num_key_value_heads", Document::integer(net.kv_heads > 0 ? net.kv_heads : net.heads))
      .set("rms_norm_eps", Document::number(net.epsilon))
      .set("tie_word_embeddings", Document::boolean(net.tied))
      .set("vocab_size", Document::integer(net.vocabulary));
  // transformers 4 reads these two, transformers 5 the third.
  config.set("rope_theta", Document::number(net.rotary.theta));
  if (net.rotary.scaling) config.set("rope_scaling", rope);
  config.set("rope_parameters", rope.set("rope_theta", Document::number(net.rotary.theta)));
  return config;
}

}  // namespace dtrain::models
