#include "models/config.hpp"

#include <cstddef>
#include <string>
#include <utility>
#include <variant>

#include "models/tables.hpp"

namespace dtrain::models {

namespace {

TypePtr<std::int64_t> at_least(std::int64_t least) {
  return integer({least, std::int64_t{1} << 31});
}

TypePtr<Activation> activation() {
  return choice<Activation>({{"none", Activation::none}, {"relu", Activation::relu}});
}

/// Reaches a member of one kind of layer through the Layer.
template <class Kind, class Member>
auto of(Member Kind::*member) {
  return [member](auto& layer) -> auto& {
    return std::get<Kind>(layer.kind).*member;
  };
}

template <class Kind>
Table<Layer> layer_table(const std::string& help) {
  return Table<Layer>(help, Layer{{}, Kind{}});
}

template <class Kind>
void add_kind(OneOf<Layer>& layers, const std::string& name, Table<Layer> table) {
  table.add("name", &Layer::name, text_or_empty(), "a name of its own; by default the kind with a number")
      .shown_if([](const Layer& layer) { return !layer.name.empty(); });
  layers.add(name, std::move(table), [](const Layer& layer) { return std::holds_alternative<Kind>(layer.kind); });
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

TypePtr<Layer> layer() {
  OneOf<Layer> layers("a layer");
  auto conv2d = layer_table<Conv2dLayer>("2-D convolution with zero padding: [C, H, W] to [filters, H', W'].");
  conv2d.add("filters", of(&Conv2dLayer::filters), at_least(1), "output channels").required();
  conv2d.add("kernel", of(&Conv2dLayer::kernel), one_or_pair_of(at_least(1)), "window").required();
  conv2d.add("stride", of(&Conv2dLayer::stride), one_or_pair_of(at_least(1)), "step of the window");
  conv2d.add("padding", of(&Conv2dLayer::padding), one_or_pair_of(at_least(0)), "zeros on each side");
  conv2d.add("bias", of(&Conv2dLayer::bias), boolean(), "add a trained constant a filter");
  conv2d.add("activation", of(&Conv2dLayer::activation), activation(), "applied to the result");
  add_kind<Conv2dLayer>(layers, "conv2d", std::move(conv2d));

  auto pool = layer_table<MaxPool2dLayer>("Largest value of each window; a rest that fills no window is dropped.");
  pool.add("size", of(&MaxPool2dLayer::size), one_or_pair_of(at_least(1)), "window");
  pool.add<std::array<std::int64_t, 2>>(
          "stride", [](const Layer& l) { return std::get<MaxPool2dLayer>(l.kind).stride; },
          [](Layer& l, std::array<std::int64_t, 2> stride) { std::get<MaxPool2dLayer>(l.kind).stride = stride; },
          one_or_pair_of(at_least(1)), "step of the window; by default its size")
      .shown_if([](const Layer& l) { return std::get<MaxPool2dLayer>(l.kind).stride[0] > 0; });
  add_kind<MaxPool2dLayer>(layers, "maxpool2d", std::move(pool));

  auto dense = layer_table<DenseLayer>("Fully connected: [features] to [units].");
  dense.add("units", of(&DenseLayer::units), at_least(1), "outputs").required();
  dense.add("bias", of(&DenseLayer::bias), boolean(), "add a trained constant a unit");
  dense.add("activation", of(&DenseLayer::activation), activation(), "applied to the result");
  add_kind<DenseLayer>(layers, "dense", std::move(dense));

  add_kind<FlattenLayer>(layers, "flatten", layer_table<FlattenLayer>("[C, H, W] to [C * H * W]."));
  add_kind<ReluLayer>(layers, "relu", layer_table<ReluLayer>("max(x, 0)."));

  auto dropout = layer_table<DropoutLayer>("Training: zeroes each value at random and scales up the rest.");
  dropout.add("rate", of(&DropoutLayer::rate), number({0, 1, false, true}), "share that is zeroed");
  add_kind<DropoutLayer>(layers, "dropout", std::move(dropout));
  return std::make_shared<PlacedLayer>(shared(std::move(layers)));
}

}  // namespace

TypePtr<ModelConfig> model_table() {
  static const TypePtr<ModelConfig> table = [] {
    Table<ModelConfig> model("The network: the shape of a sample, layers in order, and the loss.");
    model
        .add("input", &ModelConfig::input, list_of(at_least(1), "extents, [channels, height, width] or [features]", 1),
             "shape of a sample: [channels, height, width] or [features]")
        .required();
    model.add("layers", &ModelConfig::layers, list_of(layer(), "layers", 1), "the layers, first to last").required();
    model.add("loss", &ModelConfig::loss,
              choice<Loss>({{"cross_entropy", Loss::cross_entropy}, {"mean_squared_error", Loss::mean_squared_error}}),
              "what training makes small");
    return shared(std::move(model));
  }();
  return table;
}

}  // namespace dtrain::models
