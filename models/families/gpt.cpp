#include "models/families/gpt.hpp"

#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "models/families/layer_list.hpp"
#include "runtime/ops/kinds.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::models {
namespace {

/// The sizes of the release; the others are as given.
Gpt with_preset(Gpt net) {
  const auto sized = [&](std::int64_t blocks, std::int64_t heads, std::int64_t width) {
    net.blocks = blocks;
    net.heads = heads;
    net.width = width;
    return net;
  };
  switch (net.preset) {
    case Gpt::Preset::gpt2:
      return sized(12, 12, 768);
    case Gpt::Preset::gpt2_medium:
      return sized(24, 16, 1024);
    case Gpt::Preset::gpt2_large:
      return sized(36, 20, 1280);
    case Gpt::Preset::gpt2_xl:
      return sized(48, 25, 1600);
    case Gpt::Preset::none:
      break;
  }
  return net;
}

}  // namespace

TypePtr<Gpt> Gpt::table() {
  Table<Gpt> gpt("Decoder-only transformer (Radford et al. 2019): 124 to 1,558 million parameters, or any size.");
  gpt.add("preset", &Gpt::preset,
          choice<Gpt::Preset>({{"none", Preset::none},
                               {"gpt2", Preset::gpt2},
                               {"gpt2-medium", Preset::gpt2_medium},
                               {"gpt2-large", Preset::gpt2_large},
                               {"gpt2-xl", Preset::gpt2_xl}}),
          "sizes of the published models, in place of layers, heads and width")
      .shown_if([](const Gpt& net) { return net.preset != Preset::none; });
  const auto no_preset = [](const Gpt& net) { return net.preset == Preset::none; };
  gpt.add("layers", &Gpt::blocks, at_least(1), "blocks of attention and a dense part").shown_if(no_preset);
  gpt.add("heads", &Gpt::heads, at_least(1), "of each attention; they divide width").shown_if(no_preset);
  gpt.add("width", &Gpt::width, at_least(1), "channels of each position").shown_if(no_preset);
  for (const char* size : {"layers", "heads", "width"}) gpt.exclusive("preset", size);
  gpt.add("context", &Gpt::context, at_least(1), "positions that have a trained row: the longest sequence");
  gpt.add("vocabulary", &Gpt::vocabulary, at_least(1), "tokens");
  gpt.add("dropout", &Gpt::dropout, fraction(),
          "of the embedding, of the attention's weights and behind each half of a block");
  return shared(std::move(gpt));
}

std::vector<Layer> Gpt::layers(std::span<const ModelInput> inputs) const {
  const Gpt net = with_preset(*this);
  expect_heads(family, net.width, net.heads);
  // Each block adds twice to the value that all share: its projections start smaller, so that it does not grow.
  const double residual = transformer_deviation / std::sqrt(2.0 * static_cast<double>(net.blocks));
  LayerList out;
  const auto drop = [&](const std::string& name) {
    return net.dropout > 0 ? out.add(name, Dropout{net.dropout}) : out.last();
  };
  const auto add = [&](const std::string& name, const std::string& past) { out.add(name, Add{}, {out.last(), past}); };
  out.add("wte", Embedding{net.vocabulary, net.width, transformer_deviation});
  out.add("wpe", Positions{net.context, transformer_deviation});
  drop("drop");
  for (std::int64_t i = 0; i < net.blocks; ++i) {
    const std::string block = fmt::format("h_{}_", i);
    const std::string past = out.last();
    out.add(block + "ln_1", LayerNorm{});
    out.add(block + "attn_c_attn", transformer_dense(3 * net.width));
    out.add(block + "attn", Attention{.heads = net.heads, .dropout = net.dropout}, with_documents(out.last(), inputs));
    out.add(block + "attn_c_proj", transformer_dense(net.width, residual));
    drop(block + "attn_drop");
    add(block + "attn_add", past);
    const std::string middle = out.last();
    out.add(block + "ln_2", LayerNorm{});
    Dense wide = transformer_dense(4 * net.width);
    wide.activation = Activation::gelu_tanh;
    out.add(block + "mlp_c_fc", wide);
    out.add(block + "mlp_c_proj", transformer_dense(net.width, residual));
    drop(block + "mlp_drop");
    add(block + "mlp_add", middle);
  }
  out.add("ln_f", LayerNorm{});
  out.add_tied("lm_head", Dense{.units = net.vocabulary, .bias = false}, "wte");
  return out.take();
}

Document Gpt::huggingface_config(std::span<const ModelInput> /*inputs*/) const {
  const Gpt net = with_preset(*this);
  Document config = Document::map();
  config.set("architectures", Document::list({Document::string("GPT2LMHeadModel")}))
      .set("model_type", Document::string("gpt2"))
      .set("activation_function", Document::string("gelu_new"))
      .set("layer_norm_epsilon", Document::number(LayerNorm{}.epsilon))
      .set("n_embd", Document::integer(net.width))
      .set("n_head", Document::integer(net.heads))
      .set("n_layer", Document::integer(net.blocks))
      .set("n_positions", Document::integer(net.context))
      .set("vocab_size", Document::integer(net.vocabulary))
      .set("tie_word_embeddings", Document::boolean(true));
  for (const char* part : {"attn_pdrop", "embd_pdrop", "resid_pdrop"}) config.set(part, Document::number(net.dropout));
  return config;
}

}  // namespace dtrain::models
