#include "models/families/vit.hpp"

#include <utility>

#include <fmt/format.h>

#include "models/families/layer_list.hpp"
#include "runtime/ops/kinds.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::models {
namespace {

Vit with_preset(Vit net) {
  const auto sized = [&](std::int64_t blocks, std::int64_t heads, std::int64_t width) {
    net.blocks = blocks;
    net.heads = heads;
    net.width = width;
    net.patch = 16;
    return net;
  };
  switch (net.preset) {
    case Vit::Preset::ti16:
      return sized(12, 3, 192);
    case Vit::Preset::s16:
      return sized(12, 6, 384);
    case Vit::Preset::b16:
      return sized(12, 12, 768);
    case Vit::Preset::l16:
      return sized(24, 16, 1024);
    case Vit::Preset::none:
      break;
  }
  return net;
}

}  // namespace

TypePtr<Vit> Vit::table() {
  Table<Vit> vit("Transformer for images (Dosovitskiy et al. 2021): published sizes, or any size.");
  vit.add("preset", &Vit::preset,
          choice<Vit::Preset>({{"none", Preset::none},
                               {"ti16", Preset::ti16},
                               {"s16", Preset::s16},
                               {"b16", Preset::b16},
                               {"l16", Preset::l16}}),
          "sizes of a published model, in place of layers, heads, width and patch")
      .shown_if([](const Vit& net) { return net.preset != Preset::none; });
  const auto no_preset = [](const Vit& net) { return net.preset == Preset::none; };
  vit.add("layers", &Vit::blocks, at_least(1), "blocks of attention and a dense part").shown_if(no_preset);
  vit.add("heads", &Vit::heads, at_least(1), "of each attention; they divide width").shown_if(no_preset);
  vit.add("width", &Vit::width, at_least(1), "channels of each position").shown_if(no_preset);
  vit.add("patch", &Vit::patch, at_least(1), "height and width of a patch in pixels; it divides those of the image")
      .shown_if(no_preset);
  for (const char* size : {"layers", "heads", "width", "patch"}) vit.exclusive("preset", size);
  vit.add("classes", &Vit::classes, class_count(), "outputs");
  vit.add("epsilon", &Vit::epsilon, number({.least = 0, .above_least = true}), "of the norms");
  vit.add("dropout", &Vit::dropout, fraction(),
          "of the patches, of the attention's weights and behind each half of a block");
  return shared(std::move(vit));
}

std::vector<Layer> Vit::layers(std::span<const ModelInput> inputs) const {
  const Vit net = with_preset(*this);
  expect_heads(family, net.width, net.heads);
  const Shape image{std::span<const std::int64_t>(inputs[0].shape)};
  if (inputs[0].indices() || image.rank() != 3 || image[1] % net.patch != 0 || image[2] % net.patch != 0)
    throw ShapeError(
        fmt::format("vit: an input of shape {} and patches of {} x {} pixels; expected images "
                    "[channels, height, width] whose height and width are multiples of {}",
                    image.str(), net.patch, net.patch, net.patch));
  const LayerNorm norm{net.epsilon};
  LayerList out;
  const auto drop = [&](const std::string& name) {
    if (net.dropout > 0) out.add(name, Dropout{net.dropout});
  };
  const auto join = [&](const std::string& half, const std::string& past) {
    drop(half + "_drop");
    out.add(half + "_add", Add{}, {out.last(), past});
  };
  out.add("patches", Conv{.filters = net.width,
                          .kernel = {net.patch, net.patch},
                          .stride = {net.patch, net.patch},
                          .init = transformer_dense(1).init});
  out.add("class_token", ClassToken{transformer_deviation});
  out.add("position_embeddings", Positions{0, transformer_deviation});
  drop("patches_drop");
  Dense wide = transformer_dense(4 * net.width);
  wide.activation = Activation::gelu;
  for (std::int64_t i = 0; i < net.blocks; ++i) {
    const std::string block = fmt::format("layer_{}_", i);
    const std::string past = out.last();
    out.add(block + "norm_before", norm);
    out.add(block + "qkv", transformer_dense(3 * net.width));
    out.add(block + "attention", Attention{.heads = net.heads, .causal = false, .dropout = net.dropout});
    out.add(block + "attention_output", transformer_dense(net.width));
    join(block + "attention", past);
    const std::string middle = out.last();
    out.add(block + "norm_after", norm);
    out.add(block + "intermediate", wide);
    out.add(block + "output", transformer_dense(net.width));
    join(block + "output", middle);
  }
  out.add("first", SequencePool{});  // the norm goes over each position by itself: only this one is needed
  out.add("norm", norm);
  out.add("classifier", transformer_dense(net.classes));
  return out.take();
}

Document Vit::huggingface_config(std::span<const ModelInput> inputs) const {
  const Vit net = with_preset(*this);
  const std::vector<std::int64_t>& image = inputs[0].shape;
  const Document rows = Document::integer(image[1]), columns = Document::integer(image[2]);
  Document config = Document::map();
  config.set("architectures", Document::list({Document::string("ViTForImageClassification")}))
      .set("model_type", Document::string("vit"))
      .set("attention_probs_dropout_prob", Document::number(net.dropout))
      .set("hidden_act", Document::string("gelu"))
      .set("hidden_dropout_prob", Document::number(net.dropout))
      .set("hidden_size", Document::integer(net.width))
      .set("image_size", image[1] == image[2] ? rows : Document::list({rows, columns}))
      .set("intermediate_size", Document::integer(4 * net.width))
      .set("layer_norm_eps", Document::number(net.epsilon))
      .set("num_attention_heads", Document::integer(net.heads))
      .set("num_channels", Document::integer(image[0]))
      .set("num_hidden_layers", Document::integer(net.blocks))
      .set("patch_size", Document::integer(net.patch))
      .set("qkv_bias", Document::boolean(true));
  add_class_names(config, net.classes);
  return config;
}

}  // namespace dtrain::models
