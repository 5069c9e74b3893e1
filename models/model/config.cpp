#include "models/model/config.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "models/layers/layer_fields.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain::models {

namespace {

/// In place of no label.
constexpr std::int64_t nothing_ignored = std::numeric_limits<std::int64_t>::min();

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

/// {tokens: [64], vocabulary: 256}, {shape: [7]}, or [7].
class InputType final : public Type<ModelInput> {
 public:
  InputType() {
    Table<ModelInput> values("An input of the model; a list is its shape.");
    values.add("shape", &ModelInput::shape, extents_, "of a sample: [channels, height, width], [length, channels], ...")
        .shown_if([](const ModelInput& input) { return !input.indices(); });
    values
        .add<std::vector<std::int64_t>>(
            "tokens", [](const ModelInput& input) { return input.shape; },
            [](ModelInput& input, std::vector<std::int64_t> shape) { input.shape = std::move(shape); },
            one_or_list_of(at_least(1), "extents", 1), "index values: tokens or categories, so many a sample")
        .shown_if([](const ModelInput& input) { return input.indices(); });
    values.add("vocabulary", &ModelInput::vocabulary, at_least(1), "of index values: they are below this")
        .shown_if([](const ModelInput& input) { return input.indices(); });
    values.exactly_one({"shape", "tokens"});
    table_ = shared(std::move(values));
  }
  void read(const Document& d, ModelInput& into, Reader& r) const override {
    if (d.kind == Document::Kind::list) return extents_->read(d, into.shape, r);
    table_->read(d, into, r);
    const bool tokens = d.find("tokens") != nullptr;
    if (d.kind == Document::Kind::map && tokens != into.indices())
      r.problem(d.place, tokens ? "index values without a vocabulary; expected {tokens: ..., vocabulary: ...}"
                                : "a vocabulary without tokens; expected {tokens: ..., vocabulary: ...}");
  }
  Document write(const ModelInput& input) const override {
    return input.indices() ? table_->write(input) : extents_->write(input.shape);
  }
  Document schema() const override {
    return Document::map().set("anyOf", Document::list({extents_->schema(), table_->schema()}));
  }
  std::string expected() const override { return "a list of extents, or {tokens: ..., vocabulary: ...}"; }
  void reference(std::vector<ReferenceSection>& to, const std::string& path) const override {
    table_->reference(to, path);
  }

 private:
  TypePtr<std::vector<std::int64_t>> extents_ =
      list_of(at_least(1), "extents, [channels, height, width] or [features]", 1);
  TypePtr<ModelInput> table_;
};

/// A path, or {path: ..., skip: [...]}.
class InitializeType final : public Type<InitializeFrom> {
 public:
  InitializeType() {
    Table<InitializeFrom> values("Where parameters come from at the start of a run.");
    values.add("path", &InitializeFrom::path, path_, "a run, a checkpoint, or a file of weights").required();
    values.add("skip", &InitializeFrom::skip, list_of(text(), "patterns", 1),
               "patterns of names that are initialized all the same, such as \"dense_2.*\"");
    table_ = shared(std::move(values));
  }
  void read(const Document& d, InitializeFrom& into, Reader& r) const override {
    if (d.kind == Document::Kind::map) return table_->read(d, into, r);
    path_->read(d, into.path, r);
  }
  Document write(const InitializeFrom& from) const override {
    return from.skip.empty() ? path_->write(from.path) : table_->write(from);
  }
  Document schema() const override {
    return Document::map().set("anyOf", Document::list({path_->schema(), table_->schema()}));
  }
  std::string expected() const override { return "a path, or {path: ..., skip: [...]}"; }
  void reference(std::vector<ReferenceSection>& to, const std::string& path) const override {
    table_->reference(to, path);
  }

 private:
  TypePtr<std::string> path_ = text();
  TypePtr<InitializeFrom> table_;
};

/// Of a loss by name: what it reads.
void add_ports(Table<ModelLoss>& loss) {
  const auto given = [](std::string ModelLoss::*member) {
    return [member](const ModelLoss& l) { return !(l.*member).empty(); };
  };
  loss.add("of", &ModelLoss::of, text(), "the output that it reads; by default the only one")
      .shown_if(given(&ModelLoss::of));
  loss.add("target", &ModelLoss::target, text(), "of data.targets");
  loss.add("weight", &ModelLoss::weight, text(), "of data.weights: of each sample or position; by default 1")
      .shown_if(given(&ModelLoss::weight));
}

/// `named`: one of several.
OneOf<ModelLoss> loss_kinds(bool named) {
  OneOf<ModelLoss> losses("a loss");
  Table<ModelLoss> cross_entropy("Softmax and cross-entropy over classes, at each position; targets are labels.");
  if (named) add_ports(cross_entropy);
  cross_entropy
      .add<std::int64_t>(
          "ignore", [](const ModelLoss& l) { return l.ignore.value_or(nothing_ignored); },
          [](ModelLoss& l, std::int64_t label) {
            l.ignore = label == nothing_ignored ? std::optional<std::int64_t>() : label;
          },
          word_or("none", nothing_ignored, integer({-(std::int64_t{1} << 31), (std::int64_t{1} << 31) - 1})),
          "positions with this label take part in nothing")
      .shown_if([](const ModelLoss& l) { return l.ignore.has_value(); });
  cross_entropy
      .add("class_weights", &ModelLoss::class_weights, list_of(number({.least = 0}), "numbers", 1),
           "a weight for each class: that of a position by its label")
      .shown_if([](const ModelLoss& l) { return !l.class_weights.empty(); });
  cross_entropy
      .add("label_smoothing", &ModelLoss::label_smoothing, fraction(),
           "fraction of the target that is spread over all classes (Szegedy et al. 2016)")
      .shown_if([](const ModelLoss& l) { return l.label_smoothing > 0; });
  cross_entropy
      .add("z_loss", &ModelLoss::z_loss, number({.least = 0}),
           "times the square of the log-sum-exp of the logits: keeps them from growing (Chowdhery et al. 2022: 1e-4)")
      .shown_if([](const ModelLoss& l) { return l.z_loss > 0; });
  losses.add("cross_entropy", std::move(cross_entropy),
             [](const ModelLoss& l) { return l.kind == Loss::cross_entropy; });
  ModelLoss squared;
  squared.kind = Loss::mean_squared_error;
  Table<ModelLoss> mean_squared_error("Mean of squared differences; targets are values.", squared);
  if (named) add_ports(mean_squared_error);
  losses.add("mean_squared_error", std::move(mean_squared_error),
             [](const ModelLoss& l) { return l.kind == Loss::mean_squared_error; });
  if (named) {
    Table<ModelLoss> beside("A loss of several.");
    beside.add("factor", &ModelLoss::factor, number({.least = 0}), "of this loss in their sum");
    losses.beside(std::move(beside));
  }
  return losses;
}

/// A list of structs that have their names in them, as a map by name.
template <class T>
void add_named(Table<ModelConfig>& model, std::string name, std::vector<T> ModelConfig::*member, TypePtr<T> type,
               std::string items, std::string help) {
  model
      .add<Named<T>>(
          std::move(name),
          [member](const ModelConfig& m) {
            Named<T> named;
            for (const T& item : m.*member) named.emplace_back(item.name, item);
            return named;
          },
          [member](ModelConfig& m, Named<T> named) {
            (m.*member).clear();
            for (auto& [key, item] : named) {
              item.name = key;
              (m.*member).push_back(std::move(item));
            }
          },
          map_of(std::move(type), std::move(items)), std::move(help))
      .shown_if([member](const ModelConfig& m) { return !(m.*member).empty(); });
}

/// The name of a layer.
class OutputType final : public Type<ModelOutput> {
 public:
  void read(const Document& d, ModelOutput& into, Reader& r) const override { name_->read(d, into.layer, r); }
  Document write(const ModelOutput& output) const override { return name_->write(output.layer); }
  Document schema() const override { return name_->schema(); }
  std::string expected() const override { return "the name of a layer"; }

 private:
  TypePtr<std::string> name_ = text();
};

/// The settings of all batch norms of a model.
TypePtr<ModelConfig> batch_norm_table() {
  Table<ModelConfig> norm("Of every batch norm of the model.");
  norm.add("sync", &ModelConfig::sync_batch_norm, boolean(),
           "training takes means over the micro batches of all ranks (SyncBatchNorm), not over that of each rank")
      .old_spelling("statistics", {{"micro", "false"}, {"global", "true"}});
  return shared(std::move(norm));
}

}  // namespace

std::vector<ModelInput> inputs_of(const ModelConfig& model) {
  return model.inputs.empty() ? std::vector{ModelInput{"input", model.input, 0}} : model.inputs;
}
std::vector<ModelOutput> outputs_of(const ModelConfig& model) {
  return model.outputs.empty() ? std::vector{ModelOutput{"output", {}}} : model.outputs;
}
std::size_t first_input(std::span<const ModelInput> inputs) {
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].name != "documents" || !inputs[i].indices()) return i;
  return 0;
}

std::vector<ModelLoss> losses_of(const ModelConfig& model) {
  return model.losses.empty() ? std::vector{model.loss} : model.losses;
}
bool has_accuracy(const ModelConfig& model) {
  const auto losses = losses_of(model);
  return std::any_of(losses.begin(), losses.end(), [](const ModelLoss& l) { return l.kind == Loss::cross_entropy; });
}

TypePtr<ModelConfig> model_table() {
  static const TypePtr<ModelConfig> table = [] {
    Table<ModelConfig> model("The network: its inputs, layers in order or a family, its outputs and losses.");
    model
        .add("input", &ModelConfig::input, list_of(at_least(1), "extents, [channels, height, width] or [features]", 1),
             "shape of a sample: [channels, height, width] or [features]")
        .shown_if([](const ModelConfig& m) { return m.inputs.empty(); });
    add_named<ModelInput>(model, "inputs", &ModelConfig::inputs, std::make_shared<InputType>(), "inputs",
                          "several inputs, or one of tokens, by name; layers read them by `from`");
    model.exactly_one({"input", "inputs"});
    model.add("layers", &ModelConfig::layers, list_of(layer_type(), "layers", 1), "the layers, first to last")
        .shown_if([](const ModelConfig& m) { return std::holds_alternative<std::monostate>(m.family); });
    add_families(model, std::make_index_sequence<std::variant_size_v<Family> - 1>());
    add_named<ModelOutput>(model, "outputs", &ModelConfig::outputs, std::make_shared<OutputType>(), "outputs",
                           "what predictions are made of: a name and the layer; by default the last layer");
    model
        .add("loss", &ModelConfig::loss, shared(loss_kinds(false)),
             "what training makes small; by default cross_entropy")
        .shown_if([](const ModelConfig& m) { return m.losses.empty(); });
    add_named<ModelLoss>(model, "losses", &ModelConfig::losses, shared(loss_kinds(true)), "losses",
                         "several losses by name, or one of a target with a name; their sum is made small");
    model.exclusive("loss", "losses");
    model
        .add("initialize_from", &ModelConfig::initialize_from,
             TypePtr<InitializeFrom>(std::make_shared<InitializeType>()),
             "start from these weights instead of new ones: a run, a checkpoint or its label, an HDF5 file of "
             "checkpoint export, a safetensors file, or a folder of a Hugging Face model")
        .may_change()
        .shown_if([](const ModelConfig& m) { return !m.initialize_from.path.empty(); });
    model.add("lora", &ModelConfig::lora, lora_table(), "train low-rank adapters in place of the parameters")
        .shown_if([](const ModelConfig& m) { return m.lora.on(); });
    model.add(
        "batch_norm", [](auto& m) -> auto& { return m; }, batch_norm_table(), "of every batch norm");
    return shared(std::move(model));
  }();
  return table;
}

}  // namespace dtrain::models
