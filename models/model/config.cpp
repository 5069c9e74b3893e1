#include "models/model/config.hpp"

#include <cstddef>
#include <string>
#include <utility>
#include <variant>

#include "models/layers/layer_fields.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain::models {

namespace {

template <class Net>
void add_family(Table<ModelConfig>& model) {
  model
      .add<Net>(
          Net::family,
          [](const ModelConfig& m) {
            const Net* net = std::get_if<Net>(&m.family);
            return net != nullptr ? *net : Net{};
          },
          [](ModelConfig& m, Net net) { m.family = std::move(net); }, Net::table(), Net::help)
      .shown_if([](const ModelConfig& m) { return std::holds_alternative<Net>(m.family); });
}

/// All but the first alternative, which is none.
template <std::size_t... i>
void add_families(Table<ModelConfig>& model, std::index_sequence<i...>) {
  std::vector<std::string> names{"layers"};
  ((add_family<std::variant_alternative_t<i + 1, Family>>(model),
    names.emplace_back(std::variant_alternative_t<i + 1, Family>::family)),
   ...);
  model.exactly_one(std::move(names));
}

struct LossSetting {
  Loss kind = Loss::cross_entropy;
  double label_smoothing = 0;
};

TypePtr<LossSetting> loss_type() {
  OneOf<LossSetting> losses("a loss");
  Table<LossSetting> cross_entropy("Softmax and cross-entropy over classes; targets are labels.");
  cross_entropy
      .add("label_smoothing", &LossSetting::label_smoothing, fraction(),
           "fraction of the target that is spread over all classes (Szegedy et al. 2016)")
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
    add_families(model, std::make_index_sequence<std::variant_size_v<Family> - 1>());
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
