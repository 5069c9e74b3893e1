#include "models/layers/layer_fields.hpp"

#include <array>
#include <string>
#include <utility>
#include <variant>

namespace dtrain::models {

namespace {

using Pair = std::array<std::int64_t, 2>;

/// Reaches a member of one kind of layer through the Layer.
template <class Kind, class Member>
auto of(Member Kind::*member) {
  return [member](auto& layer) -> auto& {
    return std::get<Kind>(layer.kind).*member;
  };
}

template <class Kind>
Table<Layer> layer_table(const std::string& help, Kind kind = {}) {
  return Table<Layer>(help, Layer{{}, kind});
}

void add_kind(OneOf<Layer>& layers, const std::string& name, Table<Layer> table, std::function<bool(const Layer&)> is) {
  table.add("name", &Layer::name, text_or_empty(), "a name of its own; by default the kind with a number")
      .shown_if([](const Layer& layer) { return !layer.name.empty(); });
  table
      .add("from", &Layer::from, one_or_list_of(text(), "names of layers", 1),
           "what it reads: layers before it by name, or input; by default the layer before")
      .shown_if([](const Layer& layer) { return !layer.from.empty(); });
  layers.add(name, std::move(table), std::move(is));
}
template <class Kind>
void add_kind(OneOf<Layer>& layers, const std::string& name, Table<Layer> table) {
  add_kind(layers, name, std::move(table), [](const Layer& layer) { return std::holds_alternative<Kind>(layer.kind); });
}

/// A layer that remembers where it stands.
class PlacedLayer final : public Type<Layer> {
 public:
  explicit PlacedLayer(TypePtr<Layer> kinds) : kinds_(std::move(kinds)) {}
  void read(const Document& d, Layer& into, Reader& r) const override {
    kinds_->read(d, into, r);
    into.line = d.place.line;
  }
  Document write(const Layer& layer) const override { return kinds_->write(layer); }
  Document schema() const override { return kinds_->schema(); }
  std::string expected() const override { return kinds_->expected(); }
  void reference(std::vector<ReferenceSection>& to, const std::string& path) const override {
    kinds_->reference(to, path);
  }

 private:
  TypePtr<Layer> kinds_;
};

void add_conv2d(OneOf<Layer>& layers) {
  auto conv2d = layer_table<Conv2dLayer>("2-D convolution with zero padding: [C, H, W] to [filters, H', W'].");
  conv2d.add("filters", of(&Conv2dLayer::filters), at_least(1), "output channels").required();
  conv2d.add("kernel", of(&Conv2dLayer::kernel), one_or_pair_of(at_least(1)), "window").required();
  conv2d.add("stride", of(&Conv2dLayer::stride), one_or_pair_of(at_least(1)), "step of the window");
  conv2d.add("padding", of(&Conv2dLayer::padding),
             word_or("same", Pair{Conv2dLayer::same, Conv2dLayer::same}, one_or_pair_of(at_least(0))),
             "zeros on each side; same: half of an odd window, so that stride 1 keeps the extents");
  conv2d.add("dilation", of(&Conv2dLayer::dilation), one_or_pair_of(at_least(1)), "pixels between those of a window");
  conv2d.add("groups", of(&Conv2dLayer::groups), at_least(1),
             "filters see only the channels of their group; as many as channels: a depthwise convolution");
  conv2d.add("bias", of(&Conv2dLayer::bias), boolean(), "add a trained constant a filter");
  conv2d.add("activation", of(&Conv2dLayer::activation), activation_type(), "applied to the result");
  add_kind<Conv2dLayer>(layers, "conv2d", std::move(conv2d));
}

template <class Kind>
Table<Layer> pool_table(const std::string& help, const std::string& padding) {
  auto pool = layer_table<Kind>(help);
  pool.add("size", of(&Kind::size), one_or_pair_of(at_least(1)), "window");
  pool.template add<Pair>(
          "stride", [](const Layer& l) { return std::get<Kind>(l.kind).stride; },
          [](Layer& l, Pair stride) { std::get<Kind>(l.kind).stride = stride; }, one_or_pair_of(at_least(1)),
          "step of the window; by default its size")
      .shown_if([](const Layer& l) { return std::get<Kind>(l.kind).stride[0] > 0; });
  pool.add("padding", of(&Kind::padding), one_or_pair_of(at_least(0)), padding);
  return pool;
}

void add_pools(OneOf<Layer>& layers) {
  add_kind<MaxPool2dLayer>(
      layers, "maxpool2d",
      pool_table<MaxPool2dLayer>("Largest value of each window; a rest that fills no window is dropped.",
                                 "on each side; it never wins"));
  auto mean = pool_table<AveragePool2dLayer>("Mean of each window; a rest that fills no window is dropped.",
                                             "zeros on each side");
  mean.add("count_padding", of(&AveragePool2dLayer::count_padding), boolean(),
           "padding counts as zeros; false: the mean is over what is there");
  add_kind<AveragePool2dLayer>(layers, "avgpool2d", std::move(mean));
  add_kind<GlobalAveragePoolLayer>(
      layers, "global_avgpool", layer_table<GlobalAveragePoolLayer>("Mean of each channel: [C, H, W] to [C, 1, 1]."));
}

void add_norms(OneOf<Layer>& layers) {
  auto batch = layer_table<BatchNormLayer>(
      "Batch normalization of each channel or feature; evaluation uses running statistics. See model.batch_norm.");
  batch.add("epsilon", of(&BatchNormLayer::epsilon), number({0, 1, true}), "added to the variance");
  batch.add("momentum", of(&BatchNormLayer::momentum), number({0, 1}), "weight of a step's in running statistics");
  batch.add("activation", of(&BatchNormLayer::activation), activation_type(), "applied to the result");
  add_kind<BatchNormLayer>(layers, "batch_norm", std::move(batch));
  auto layer =
      layer_table<LayerNormLayer>("Layer normalization over the features, or over the channels of each pixel.");
  layer.add("epsilon", of(&LayerNormLayer::epsilon), number({0, 1, true}), "added to the variance");
  add_kind<LayerNormLayer>(layers, "layer_norm", std::move(layer));
}

void add_activations(OneOf<Layer>& layers) {
  for (const auto& [kind, help] :
       {std::pair(Activation::relu, "max(x, 0)."),
        std::pair(Activation::gelu, "x * Phi(x), of the normal distribution."),
        std::pair(Activation::silu, "x * sigmoid(x)."), std::pair(Activation::tanh, "tanh(x)."),
        std::pair(Activation::sigmoid, "1 / (1 + exp(-x))."),
        std::pair(Activation::hard_swish, "x * min(max(x + 3, 0), 6) / 6.")}) {
    const Activation wanted = kind;
    add_kind(layers, std::string(name_of(kind)), layer_table(help, ActivationLayer{kind}),
             [wanted](const Layer& layer) {
               const auto* activation = std::get_if<ActivationLayer>(&layer.kind);
               return activation != nullptr && activation->kind == wanted;
             });
  }
}

void add_joins(OneOf<Layer>& layers) {
  auto add = layer_table<AddLayer>("Sum of two equal shapes: from: [a, b].");
  add.add("activation", of(&AddLayer::activation), activation_type(), "applied to the result");
  add_kind<AddLayer>(layers, "add", std::move(add));
  add_kind<MultiplyLayer>(
      layers, "multiply",
      layer_table<MultiplyLayer>("Product of two equal shapes, or of [C, H, W] and [C, 1, 1]: from: [a, b]."));
  add_kind<ConcatLayer>(
      layers, "concat",
      layer_table<ConcatLayer>("Channels or features one behind the other, of 2 to 32 layers: from: [a, b, ...]."));
}

void add_random(OneOf<Layer>& layers) {
  const TypePtr<double> share = number({0, 1, false, true});
  auto dropout = layer_table<DropoutLayer>("Training: zeroes each value at random and scales up the rest.");
  dropout.add("rate", of(&DropoutLayer::rate), share, "share that is zeroed");
  add_kind<DropoutLayer>(layers, "dropout", std::move(dropout));
  auto path = layer_table<DropPathLayer>("Training: zeroes whole samples at random (stochastic depth), before an add.");
  path.add("rate", of(&DropPathLayer::rate), share, "share that is zeroed");
  add_kind<DropPathLayer>(layers, "drop_path", std::move(path));
}

}  // namespace

TypePtr<std::int64_t> at_least(std::int64_t least) {
  return integer({least, std::int64_t{1} << 31});
}

TypePtr<Activation> activation_type() {
  std::vector<std::pair<std::string, Activation>> values;
  for (const Activation a : {Activation::none, Activation::relu, Activation::gelu, Activation::silu, Activation::tanh,
                             Activation::sigmoid, Activation::hard_swish})
    values.emplace_back(name_of(a), a);
  return choice<Activation>(values);
}

TypePtr<Layer> layer_type() {
  OneOf<Layer> layers("a layer");
  add_conv2d(layers);
  add_pools(layers);
  auto dense = layer_table<DenseLayer>("Fully connected: [features] to [units].");
  dense.add("units", of(&DenseLayer::units), at_least(1), "outputs").required();
  dense.add("bias", of(&DenseLayer::bias), boolean(), "add a trained constant a unit");
  dense.add("activation", of(&DenseLayer::activation), activation_type(), "applied to the result");
  add_kind<DenseLayer>(layers, "dense", std::move(dense));
  add_kind<FlattenLayer>(layers, "flatten", layer_table<FlattenLayer>("[C, H, W] to [C * H * W]."));
  add_norms(layers);
  add_activations(layers);
  add_joins(layers);
  add_random(layers);
  return std::make_shared<PlacedLayer>(shared(std::move(layers)));
}

}  // namespace dtrain::models
