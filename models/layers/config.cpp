#include "models/layers/config.hpp"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <variant>

#include <fmt/format.h>

#include "models/layers/layer_fields.hpp"
#include "models/layers/tables.hpp"

namespace dtrain::models {

namespace {

/// One of a few numbers.
class OneOfNumbers final : public Type<std::int64_t> {
 public:
  explicit OneOfNumbers(std::vector<std::int64_t> values) : values_(std::move(values)) {}
  void read(const Document& d, std::int64_t& into, Reader& r) const override {
    for (const std::int64_t value : values_)
      if (d.kind == Document::Kind::plain && d.text == std::to_string(value)) return void(into = value);
    r.unexpected(d, expected());
  }
  Document write(const std::int64_t& value) const override { return Document::integer(value); }
  Document schema() const override {
    Document list = Document::list();
    for (const std::int64_t value : values_) list.items.push_back(Document::integer(value));
    return Document::map().set("enum", std::move(list));
  }
  std::string expected() const override { return fmt::format("one of {}", fmt::join(values_, ", ")); }

 private:
  std::vector<std::int64_t> values_;
};

TypePtr<std::int64_t> classes() {
  return integer({1, std::int64_t{1} << 31});
}
TypePtr<double> share() {
  return number({0, 1, false, true});
}

TypePtr<Mlp> mlp_table() {
  Table<Mlp> mlp("Dense layers, one behind the other; an image is flattened first.");
  mlp.add("widths", &Mlp::widths, list_of(at_least(1), "units of the hidden layers", 1), "units of each hidden layer")
      .required();
  mlp.add("activation", &Mlp::activation, activation_type(), "of the hidden layers");
  mlp.add("dropout", &Mlp::dropout, share(), "behind each hidden layer");
  mlp.add("classes", &Mlp::classes, classes(), "outputs");
  return shared(std::move(mlp));
}

TypePtr<ResNet> resnet_table() {
  Table<ResNet> resnet("Residual network (He et al. 2016), v1.5: parameters and their order as in torchvision.");
  resnet
      .add("depth", &ResNet::depth,
           TypePtr<std::int64_t>(std::make_shared<OneOfNumbers>(std::vector<std::int64_t>{18, 34, 50})),
           "layers with weights")
      .required();
  resnet.add("stem", &ResNet::stem,
             choice<ResNet::Stem>({{"imagenet", ResNet::Stem::imagenet}, {"cifar", ResNet::Stem::cifar}}),
             "imagenet: 7x7 of stride 2 and a max pool; cifar: 3x3 of stride 1, no pool");
  resnet.add("zero_init_residual", &ResNet::zero_init_residual, boolean(),
             "the last batch norm of each block starts with weight 0");
  resnet.add("classes", &ResNet::classes, classes(), "outputs");
  return shared(std::move(resnet));
}

TypePtr<EfficientNetB0> efficientnet_table() {
  Table<EfficientNetB0> net("EfficientNet-B0 (Tan and Le 2019): parameters and their order as in torchvision.");
  net.add("dropout", &EfficientNetB0::dropout, share(), "before the classifier");
  net.add("drop_path", &EfficientNetB0::drop_path, share(),
          "stochastic depth of the last block; it grows linearly from 0");
  net.add("classes", &EfficientNetB0::classes, classes(), "outputs");
  return shared(std::move(net));
}

template <class Net>
void add_family(Table<ModelConfig>& model, TypePtr<Net> table, const std::string& help) {
  model
      .add<Net>(
          std::string(family_name(Net{})),
          [](const ModelConfig& m) {
            const Net* net = std::get_if<Net>(&m.family);
            return net != nullptr ? *net : Net{};
          },
          [](ModelConfig& m, Net net) { m.family = std::move(net); }, std::move(table), help)
      .shown_if([](const ModelConfig& m) { return std::holds_alternative<Net>(m.family); });
}

struct LossSetting {
  Loss kind = Loss::cross_entropy;
  double label_smoothing = 0;
};

TypePtr<LossSetting> loss_type() {
  OneOf<LossSetting> losses("a loss");
  Table<LossSetting> cross_entropy("Softmax and cross-entropy over classes; targets are labels.");
  cross_entropy
      .add("label_smoothing", &LossSetting::label_smoothing, share(),
           "share of the target that is spread over all "
           "classes (Szegedy et al. 2016)")
      .shown_if([](const LossSetting& s) { return s.label_smoothing > 0; });
  losses.add("cross_entropy", std::move(cross_entropy),
             [](const LossSetting& s) { return s.kind == Loss::cross_entropy; });
  losses.add(
      "mean_squared_error",
      Table<LossSetting>("Mean of squared differences; targets are values.", LossSetting{Loss::mean_squared_error, 0}),
      [](const LossSetting& s) { return s.kind == Loss::mean_squared_error; });
  return shared(std::move(losses));
}

TypePtr<Statistics> batch_norm_statistics() {
  return choice<Statistics>({{"micro", Statistics::micro}, {"global", Statistics::global}});
}

/// The settings of all batch norms of a model.
TypePtr<ModelConfig> batch_norm_table() {
  Table<ModelConfig> norm("Of every batch norm of the model.");
  norm.add("statistics", &ModelConfig::statistics, batch_norm_statistics(),
           "of training: micro: over a micro batch of a rank; global: over those of all ranks");
  return shared(std::move(norm));
}

}  // namespace

TypePtr<ModelConfig> model_table() {
  static const TypePtr<ModelConfig> table = [] {
    Table<ModelConfig> model("The network: the shape of a sample, layers in order or a family, and the loss.");
    model
        .add("input", &ModelConfig::input, list_of(at_least(1), "extents, [channels, height, width] or [features]", 1),
             "shape of a sample: [channels, height, width] or [features]")
        .required();
    model.add("layers", &ModelConfig::layers, list_of(layer_type(), "layers", 1), "the layers, first to last")
        .shown_if([](const ModelConfig& m) { return std::holds_alternative<std::monostate>(m.family); });
    add_family<Mlp>(model, mlp_table(), "dense layers, in place of `layers`");
    add_family<ResNet>(model, resnet_table(), "a residual network, in place of `layers`");
    add_family<EfficientNetB0>(model, efficientnet_table(), "EfficientNet-B0, in place of `layers`");
    model.exactly_one({"layers", "mlp", "resnet", "efficientnet-b0"});
    model.add<LossSetting>(
        "loss",
        [](const ModelConfig& m) {
          return LossSetting{m.loss, m.label_smoothing};
        },
        [](ModelConfig& m, LossSetting loss) {
          m.loss = loss.kind;
          m.label_smoothing = loss.label_smoothing;
        },
        loss_type(), "what training makes small; by default cross_entropy");
    model.add(
        "batch_norm", [](auto& m) -> auto& { return m; }, batch_norm_table(), "of every batch norm");
    return shared(std::move(model));
  }();
  return table;
}

}  // namespace dtrain::models
