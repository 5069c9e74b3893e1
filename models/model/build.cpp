#include "models/model/build.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <fmt/format.h>

#include "runtime/config/document.hpp"

namespace dtrain::models {

namespace {

// ---- who reads whom ------------------------------------------------------------------------------------------------

constexpr std::size_t the_input = static_cast<std::size_t>(-1);

/// A layer with its name and the layers that it reads.
struct Linked {
  const Layer* layer;
  std::string name;
  std::vector<std::size_t> from;  // indices of layers, or the_input
};

/// Resolves names: every layer reads layers before it, and is read.
class Linker {
 public:
  explicit Linker(std::span<const Layer> layers) {
    std::map<std::string, int, std::less<>> numbers;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const std::string kind(name_of(layers[i].op));
      const int number = ++numbers[kind];
      linked_.push_back({&layers[i], layers[i].name.empty() ? fmt::format("{}_{}", kind, number) : layers[i].name, {}});
      const std::string& name = linked_.back().name;
      if (name == "input" || name == "loss")
        throw LayerError(i, fmt::format("layer \"{0}\": {0} is the model's own name; expected another", name));
      if (!index_.emplace(name, i).second)
        throw LayerError(i, fmt::format("layer \"{}\": the name is taken by another layer", name));
    }
  }

  std::vector<Linked> link() {
    for (std::size_t i = 0; i < linked_.size(); ++i) {
      if (linked_[i].layer->from.empty()) linked_[i].from = {i == 0 ? the_input : i - 1};
      for (const std::string& name : linked_[i].layer->from) linked_[i].from.push_back(resolve(i, name));
    }
    std::vector<bool> read(linked_.size(), false);
    for (const Linked& layer : linked_)
      for (const std::size_t from : layer.from)
        if (from != the_input) read[from] = true;
    for (std::size_t i = 0; i + 1 < linked_.size(); ++i) {
      if (!read[i]) {
        throw LayerError(i, fmt::format("layer {}: nothing reads its output; expected its name in the `from` of a "
                                        "later layer",
                                        linked_[i].name));
      }
    }
    return std::move(linked_);
  }

 private:
  std::size_t resolve(std::size_t i, const std::string& name) const {
    if (name == "input") return the_input;
    const auto it = index_.find(name);
    if (it == index_.end()) {
      std::vector<std::string> names{"input"};
      for (std::size_t k = 0; k < linked_.size(); ++k)
        if (k != i) names.push_back(linked_[k].name);
      const std::string near = nearest_name(name, names);
      throw LayerError(
          i, fmt::format("layer {}: from: there is no layer {}; expected input or a layer before it{}", linked_[i].name,
                         json_string(name), near.empty() ? "" : fmt::format("; did you mean {}?", near)));
    }
    if (it->second == i)
      throw LayerError(i, fmt::format("layer {}: from: it reads itself; expected a layer before it", name));
    if (it->second > i) {
      throw LayerError(i, fmt::format("layer {}: from: {} comes after it{}; expected a layer before it",
                                      linked_[i].name, name, reads(it->second, i) ? " and reads it: a cycle" : ""));
    }
    return it->second;
  }

  /// Whether a layer reads an earlier one, directly or through layers in between; names that do not resolve are no way.
  bool reads(std::size_t later, std::size_t earlier) const {
    std::vector<bool> reached(linked_.size(), false);
    reached[later] = true;
    for (std::size_t i = later; i > earlier; --i) {
      if (!reached[i]) continue;
      const std::vector<std::string>& from = linked_[i].layer->from;
      if (from.empty()) reached[i - 1] = true;
      for (const std::string& name : from)
        if (const auto it = index_.find(name); it != index_.end()) reached[it->second] = true;
    }
    return reached[earlier];
  }

  std::vector<Linked> linked_;
  std::map<std::string, std::size_t, std::less<>> index_;
};

// ---- the graph -----------------------------------------------------------------------------------------------------

class Builder {
 public:
  Builder(const ModelConfig& model, std::int64_t batch, DType compute)
      : model_(model),
        compute_(compute),
        family_(family_layers(model.family, model.input)),
        linked_(Linker(family_.empty() ? model.layers : family_).link()),
        graph_(batch) {}

  Graph build() {
    if (linked_.empty()) throw ShapeError("the model has no layers");
    input_ =
        graph_.add_input(PortUse::input, "input", TensorDesc::of_sample(DType::f32, graph_.batch(), model_.input));
    if (compute_ != DType::f32) input_ = graph_.add("input_cast", Cast{compute_}, {input_});
    for (std::size_t i = 0; i < linked_.size(); ++i) {
      try {
        values_.push_back(add_layer(i));
      } catch (const LayerError&) {
        throw;
      } catch (const ShapeError& e) {
        throw LayerError(i, e.what());
      }
    }
    add_loss();
    return std::move(graph_);
  }

 private:
  ValueId add_layer(std::size_t i) {
    const Layer& layer = *linked_[i].layer;
    std::vector<ValueId> in;
    for (const std::size_t from : linked_[i].from) in.push_back(from == the_input ? input_ : values_[from]);
    const auto* dense = std::get_if<Dense>(&layer.op);
    // A dense layer may see the whole image: the flatten in between changes nothing but the shape.
    if (dense != nullptr && !dense->per_position && linked_[i].from[0] == the_input &&
        graph_.desc(in[0]).shape.rank() > 3)
      in[0] = flattened_input();
    check_different(i, in);
    return std::visit([&](const auto& op) { return add(linked_[i].name, op, in); }, layer.op);
  }

  ValueId flattened_input() {
    if (!flattened_) flattened_ = graph_.add("input_flatten", Flatten{}, {input_});
    return *flattened_;
  }

  // ---- what layers become ----

  /// An op may apply some activations inside; the others become a node behind it.
  template <class Op>
  ValueId add(const std::string& name, Op op, const std::vector<ValueId>& in) {
    Activation activation = Activation::none;
    if constexpr (requires { op.activation; })
      if (!derivative_of_output(op.activation)) activation = std::exchange(op.activation, Activation::none);
    const ValueId value = graph_.add(name, op, in);
    if (activation == Activation::none) return value;
    return graph_.add(fmt::format("{}_{}", name, name_of(activation)), Activate{activation}, {value});
  }
  ValueId add(const std::string& name, const BatchNorm& op, const std::vector<ValueId>& in) {
    if (model_.statistics == Statistics::micro) return add<BatchNorm>(name, op, in);
    const ValueId own = graph_.add(name + "_moments", BatchMoments{}, in);
    const ValueId sum = graph_.add(name + "_sum", SumOverRanks{}, {own});
    return add(name, BatchNormalize{op.epsilon, op.momentum, op.activation, op.initial_weight}, {in[0], sum});
  }
  ValueId add(const std::string& name, Dropout op, const std::vector<ValueId>& in) {
    op.id = dropouts_++;
    return graph_.add(name, op, in);
  }

  void add_loss() {
    const std::size_t index = linked_.size();
    const bool labels = model_.loss == Loss::cross_entropy;
    ValueId value = values_.back();
    const TensorDesc out = graph_.desc(value);
    if (out.shape.rank() != 2) {
      throw LayerError(
          index, fmt::format("the loss: the last layer's output has shape {}; expected [{}]; end with a dense layer",
                             out.sample_str(), labels ? "classes" : "values"));
    }
    if (labels && out.channels() < 2) {
      throw LayerError(index, fmt::format("the loss: cross_entropy over {} class; expected at least 2 outputs, or "
                                          "mean_squared_error",
                                          out.channels()));
    }
    if (graph_.params().empty())
      throw LayerError(index, "the loss: no layer has parameters to train; expected a dense or conv2d layer");
    try {
      if (compute_ != DType::f32) value = graph_.add("output_cast", Cast{DType::f32}, {value});
      const std::int64_t batch = graph_.batch();
      const ValueId target =
          graph_.add_input(PortUse::target, "target",
                           labels ? TensorDesc{DType::i32, Shape{batch}} : TensorDesc{DType::f32, out.shape});
      const ValueId weight = graph_.add_input(PortUse::weight, "weight", {DType::f32, Shape{batch}});
      const OpSpec op = labels ? OpSpec(SoftmaxCrossEntropy{model_.label_smoothing}) : OpSpec(MeanSquaredError{});
      graph_.add("loss", op, {value, target, weight});
    } catch (const ShapeError& e) {
      throw LayerError(index, e.what());
    }
  }

  /// Where the value's memory comes from: a flatten is a view.
  ValueId memory_of(ValueId v) const {
    for (NodeId n = graph_.values()[static_cast<std::size_t>(v)].producer; n >= 0;
         n = graph_.values()[static_cast<std::size_t>(v)].producer) {
      const GraphNode& node = graph_.nodes()[static_cast<std::size_t>(n)];
      if (!std::holds_alternative<Flatten>(node.op)) break;
      v = node.in[0];
    }
    return v;
  }

  /// A gradient is written to each input: two of one memory would overwrite each other's.
  void check_different(std::size_t i, const std::vector<ValueId>& in) const {
    for (std::size_t k = 1; k < in.size(); ++k) {
      for (std::size_t j = 0; j < k; ++j) {
        if (memory_of(in[j]) == memory_of(in[k]))
          throw LayerError(i, fmt::format("layer {}: its inputs {} and {} are the same; expected different ones",
                                          linked_[i].name, graph_.values()[static_cast<std::size_t>(in[j])].name,
                                          graph_.values()[static_cast<std::size_t>(in[k])].name));
      }
    }
  }

  const ModelConfig& model_;
  DType compute_;
  std::vector<Layer> family_;
  std::vector<Linked> linked_;
  Graph graph_;
  ValueId input_ = -1;
  std::optional<ValueId> flattened_;
  std::vector<ValueId> values_;  // by layer: what it gives, behind its activation
  std::uint32_t dropouts_ = 0;
};

}  // namespace

Graph build(const ModelConfig& model, std::int64_t batch, DType compute) {
  if (model.input.empty() || model.input.size() > 4) {
    throw ShapeError(
        fmt::format("model.input has {} extents; expected [features], [length, channels], [channels, height, "
                    "width] or [channels, depth, height, width]",
                    model.input.size()));
  }
  double elements = 1;
  for (const std::int64_t extent : model.input) elements *= static_cast<double>(extent);
  if (!(elements >= 1 && elements <= 1e9)) {
    throw ShapeError(fmt::format("model.input {} is not possible; expected 1 to 1e9 values a sample",
                                 Shape(std::span<const std::int64_t>(model.input)).str()));
  }
  return Builder(model, batch, compute).build();
}

Shape target_shape(const ModelConfig& model) {
  if (model.loss == Loss::cross_entropy) return {};
  // Two samples: the least that a batch norm accepts.
  const Graph graph = build(model, 2, DType::f32);
  return graph.desc(graph.input(PortUse::target)).sample();
}

}  // namespace dtrain::models
