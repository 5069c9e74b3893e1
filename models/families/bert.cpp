#include "models/families/bert.hpp"

#include <utility>

#include <fmt/format.h>

#include "models/families/layer_list.hpp"
#include "runtime/ops/kinds.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::models {
namespace {

Bert with_preset(Bert net) {
  const auto sized = [&](std::int64_t blocks, std::int64_t heads, std::int64_t width) {
    net.blocks = blocks;
    net.heads = heads;
    net.width = width;
    net.hidden = 4 * width;
    return net;
  };
  switch (net.preset) {
    case Bert::Preset::base:
      return sized(12, 12, 768);
    case Bert::Preset::large:
      return sized(24, 16, 1024);
    case Bert::Preset::minilm:
      return sized(6, 12, 384);
    case Bert::Preset::none:
      break;
  }
  return net;
}

}  // namespace

TypePtr<Bert> Bert::table() {
  Table<Bert> bert("Encoder (Devlin et al. 2019): published sizes, or any size.");
  bert.add("preset", &Bert::preset,
           choice<Bert::Preset>(
               {{"none", Preset::none}, {"base", Preset::base}, {"large", Preset::large}, {"minilm", Preset::minilm}}),
           "sizes of a published model, in place of layers, heads, width and hidden")
      .shown_if([](const Bert& net) { return net.preset != Preset::none; });
  const auto no_preset = [](const Bert& net) { return net.preset == Preset::none; };
  bert.add("layers", &Bert::blocks, at_least(1), "blocks of attention and a dense part").shown_if(no_preset);
  bert.add("heads", &Bert::heads, at_least(1), "of each attention; they divide width").shown_if(no_preset);
  bert.add("width", &Bert::width, at_least(1), "channels of each position").shown_if(no_preset);
  bert.add("hidden", &Bert::hidden, at_least(1), "channels inside the dense part").shown_if(no_preset);
  for (const char* size : {"layers", "heads", "width", "hidden"}) bert.exclusive("preset", size);
  bert.add("context", &Bert::context, at_least(1), "positions that have a trained row: the longest sequence");
  bert.add("vocabulary", &Bert::vocabulary, at_least(1), "tokens");
  bert.add("classes", &Bert::classes, at_least(0), "of a sequence; 0: it scores the tokens of each position")
      .shown_if([](const Bert& net) { return net.classes > 0; });
  bert.add("sentence", &Bert::sentence, boolean(),
           "true: it gives one row of channels for a sequence, the mean over its positions")
      .shown_if([](const Bert& net) { return net.sentence; });
  bert.exclusive("classes", "sentence");
  bert.add("epsilon", &Bert::epsilon, number({.least = 0, .above_least = true}), "of the norms");
  bert.add("dropout", &Bert::dropout, fraction(),
           "of the embedding, of the attention's weights and behind each half of a block");
  return shared(std::move(bert));
}

std::vector<Layer> Bert::layers(std::span<const ModelInput> inputs) const {
  const Bert net = with_preset(*this);
  expect_heads(family, net.width, net.heads);
  const LayerNorm norm{net.epsilon};
  LayerList out;
  const auto drop = [&](const std::string& name) {
    if (net.dropout > 0) out.add(name, Dropout{net.dropout});
  };
  /// Behind half a block.
  const auto join = [&](const std::string& half, const std::string& past) {
    drop(half + "_drop");
    out.add(half + "_add", Add{}, {out.last(), past});
    out.add(half + "_norm", norm);
  };
  out.add("word_embeddings", Embedding{net.vocabulary, net.width, transformer_deviation});
  if (has_input(inputs, "segments")) {
    out.add("token_type_embeddings", Embedding{2, net.width, transformer_deviation}, {"segments"});
    out.add("embeddings_add", Add{}, {"word_embeddings", "token_type_embeddings"});
  }
  out.add("position_embeddings", Positions{net.context, transformer_deviation});
  out.add("embeddings_norm", norm);
  drop("embeddings_drop");
  Dense wide = transformer_dense(net.hidden);
  wide.activation = Activation::gelu;
  for (std::int64_t i = 0; i < net.blocks; ++i) {
    const std::string block = fmt::format("layer_{}_", i);
    const std::string past = out.last();
    out.add(block + "qkv", transformer_dense(3 * net.width));
    out.add(block + "attention", Attention{.heads = net.heads, .causal = false, .dropout = net.dropout},
            with_documents(out.last(), inputs));
    out.add(block + "attention_output", transformer_dense(net.width));
    join(block + "attention", past);
    const std::string middle = out.last();
    out.add(block + "intermediate", wide);
    out.add(block + "output", transformer_dense(net.width));
    join(block + "output", middle);
  }
  if (net.sentence) {
    out.add("sentence", SequencePool{SequencePool::Take::mean}, with_documents(out.last(), inputs));
  } else if (net.classes > 0) {
    out.add("first", SequencePool{});
    Dense pooler = transformer_dense(net.width);
    pooler.activation = Activation::tanh;
    out.add("pooler", pooler);
    drop("pooler_drop");
    out.add("classifier", transformer_dense(net.classes));
  } else {
    Dense transform = transformer_dense(net.width);
    transform.activation = Activation::gelu;
    out.add("transform", transform);
    out.add("transform_norm", norm);
    out.add_tied("decoder", transformer_dense(net.vocabulary), "word_embeddings");
  }
  return out.take();
}

Document Bert::huggingface_config(std::span<const ModelInput> /*inputs*/) const {
  const Bert net = with_preset(*this);
  const char* model = net.sentence      ? "BertModel"
                      : net.classes > 0 ? "BertForSequenceClassification"
                                        : "BertForMaskedLM";
  Document config = Document::map();
  config.set("architectures", Document::list({Document::string(model)}))
      .set("model_type", Document::string("bert"))
      .set("attention_probs_dropout_prob", Document::number(net.dropout))
      .set("hidden_act", Document::string("gelu"))
      .set("hidden_dropout_prob", Document::number(net.dropout))
      .set("hidden_size", Document::integer(net.width))
      .set("intermediate_size", Document::integer(net.hidden))
      .set("layer_norm_eps", Document::number(net.epsilon))
      .set("max_position_embeddings", Document::integer(net.context))
      .set("num_attention_heads", Document::integer(net.heads))
      .set("num_hidden_layers", Document::integer(net.blocks))
      .set("tie_word_embeddings", Document::boolean(true))
      .set("type_vocab_size", Document::integer(2))
      .set("vocab_size", Document::integer(net.vocabulary));
  if (net.classes > 0) add_class_names(config, net.classes);
  return config;
}

}  // namespace dtrain::models
