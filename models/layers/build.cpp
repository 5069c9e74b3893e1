#include "models/layers/build.hpp"

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

#include "models/families/families.hpp"
#include "runtime/config/document.hpp"

namespace dtrain::models {

namespace {

using Pair = std::array<std::int64_t, 2>;

template <class... F>
struct Visit : F... {
  using F::operator()...;
};
template <class... F>
Visit(F...) -> Visit<F...>;

std::string_view kind_name(const LayerKind& kind) {
  return std::visit(Visit{[](const Conv2dLayer&) -> std::string_view { return "conv2d"; },
                          [](const MaxPool2dLayer&) -> std::string_view { return "maxpool2d"; },
                          [](const AveragePool2dLayer&) -> std::string_view { return "avgpool2d"; },
                          [](const GlobalAveragePoolLayer&) -> std::string_view { return "global_avgpool"; },
                          [](const DenseLayer&) -> std::string_view { return "dense"; },
                          [](const BatchNormLayer&) -> std::string_view { return "batch_norm"; },
                          [](const LayerNormLayer&) -> std::string_view { return "layer_norm"; },
                          [](const ActivationLayer& layer) { return name_of(layer.kind); },
                          [](const AddLayer&) -> std::string_view { return "add"; },
                          [](const MultiplyLayer&) -> std::string_view { return "multiply"; },
                          [](const ConcatLayer&) -> std::string_view { return "concat"; },
                          [](const DropoutLayer&) -> std::string_view { return "dropout"; },
                          [](const DropPathLayer&) -> std::string_view { return "drop_path"; },
                          [](const FlattenLayer&) -> std::string_view { return "flatten"; }},
                    kind);
}

template <class Kind>
bool is(const Layer& layer) {
  return std::holds_alternative<Kind>(layer.kind);
}

/// The shape of a sample, as users write it.
std::string sample_str(const Shape& batched) {
  return Shape(batched.extents().subspan(1)).str();
}

Shape batched(std::int64_t batch, std::span<const std::int64_t> sample) {
  std::vector<std::int64_t> extents{batch};
  extents.insert(extents.end(), sample.begin(), sample.end());
  return Shape(std::span<const std::int64_t>(extents));
}

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
      const std::string kind(kind_name(layers[i].kind));
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
      check_count(i);
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

  void check_count(std::size_t i) const {
    const Linked& linked = linked_[i];
    const std::string_view kind = kind_name(linked.layer->kind);
    const std::size_t count = linked.from.size();
    if (is<ConcatLayer>(*linked.layer)) {
      if (count < 2 || count > 32)
        throw LayerError(i, fmt::format("layer {}: concat takes 2 to 32 inputs, not {}; expected from: [a, b, ...]",
                                        linked.name, count));
    } else if (is<AddLayer>(*linked.layer) || is<MultiplyLayer>(*linked.layer)) {
      if (count != 2)
        throw LayerError(
            i, fmt::format("layer {}: {} takes two inputs, not {}; expected from: [a, b]", linked.name, kind, count));
    } else if (count != 1) {
      throw LayerError(i, fmt::format("layer {}: {} takes one input, not {}; expected one name in from; add, multiply "
                                      "and concat join several",
                                      linked.name, kind, count));
    }
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
    TensorDesc sample{DType::f32, batched(graph_.batch(), model_.input)};
    if (sample.shape.rank() == 4) sample.layout = Layout::channels_last;
    input_ = graph_.add_input(InputRole::sample, "sample", sample);
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
  const Shape& shape(ValueId v) const { return graph_.desc(v).shape; }

  ValueId add_layer(std::size_t i) {
    const Layer& layer = *linked_[i].layer;
    const std::string& name = linked_[i].name;
    std::vector<ValueId> in;
    for (const std::size_t from : linked_[i].from) in.push_back(from == the_input ? input_ : values_[from]);
    // A dense layer may see the whole image: the flatten in between changes nothing but the shape.
    if (is<DenseLayer>(layer) && linked_[i].from[0] == the_input && shape(in[0]).rank() == 4) in[0] = flattened_input();
    check_inputs(i, in);
    return std::visit([&](const auto& kind) { return add(name, kind, in); }, layer.kind);
  }

  ValueId flattened_input() {
    if (!flattened_) flattened_ = graph_.add("input_flatten", Flatten{}, {input_});
    return *flattened_;
  }

  // ---- what layers become ----

  /// An op that may apply some activations inside; the others become a node behind it.
  template <class Op>
  ValueId add_with_activation(const std::string& name, Op op, const std::vector<ValueId>& in, Activation activation) {
    if (activation != Activation::none && derivative_of_output(activation))
      op.activation = std::exchange(activation, Activation::none);
    const ValueId value = graph_.add(name, op, in);
    if (activation == Activation::none) return value;
    return graph_.add(fmt::format("{}_{}", name, name_of(activation)), Activate{activation}, {value});
  }
  template <class Layer, class Op>
  ValueId add_pool(const std::string& name, const Layer& l, Op op, const std::vector<ValueId>& in) {
    op.size = l.size;
    op.stride = {l.stride[0] > 0 ? l.stride[0] : l.size[0], l.stride[1] > 0 ? l.stride[1] : l.size[1]};
    op.padding = l.padding;
    return graph_.add(name, op, in);
  }

  ValueId add(const std::string& name, const Conv2dLayer& l, const std::vector<ValueId>& in) {
    Conv2d op{.filters = l.filters,
              .kernel = l.kernel,
              .stride = l.stride,
              .padding = l.padding,
              .bias = l.bias,
              .dilation = l.dilation,
              .groups = l.groups,
              .weight_init = l.weight_init};
    for (std::size_t i = 0; i < 2; ++i)
      if (op.padding[i] == Conv2dLayer::same) op.padding[i] = l.dilation[i] * (l.kernel[i] - 1) / 2;
    return add_with_activation(name, op, in, l.activation);
  }
  ValueId add(const std::string& name, const MaxPool2dLayer& l, const std::vector<ValueId>& in) {
    return add_pool(name, l, MaxPool2d{}, in);
  }
  ValueId add(const std::string& name, const AveragePool2dLayer& l, const std::vector<ValueId>& in) {
    AveragePool2d op;
    op.count_padding = l.count_padding;
    return add_pool(name, l, op, in);
  }
  ValueId add(const std::string& name, const GlobalAveragePoolLayer&, const std::vector<ValueId>& in) {
    return graph_.add(name, GlobalAveragePool{}, in);
  }
  ValueId add(const std::string& name, const DenseLayer& l, const std::vector<ValueId>& in) {
    return add_with_activation(name, Linear{.units = l.units, .bias = l.bias, .weight_init = l.weight_init}, in,
                               l.activation);
  }
  ValueId add(const std::string& name, const BatchNormLayer& l, const std::vector<ValueId>& in) {
    if (model_.statistics == Statistics::micro) {
      return add_with_activation(
          name, BatchNorm{.epsilon = l.epsilon, .momentum = l.momentum, .initial_weight = l.initial_weight}, in,
          l.activation);
    }
    const ValueId own = graph_.add(name + "_moments", BatchMoments{}, in);
    const ValueId sum = graph_.add(name + "_sum", SumOverRanks{}, {own});
    return add_with_activation(
        name, BatchNormalize{.epsilon = l.epsilon, .momentum = l.momentum, .initial_weight = l.initial_weight},
        {in[0], sum}, l.activation);
  }
  ValueId add(const std::string& name, const LayerNormLayer& l, const std::vector<ValueId>& in) {
    return graph_.add(name, LayerNorm{l.epsilon}, in);
  }
  ValueId add(const std::string& name, const ActivationLayer& l, const std::vector<ValueId>& in) {
    return graph_.add(name, Activate{l.kind}, in);
  }
  ValueId add(const std::string& name, const AddLayer& l, const std::vector<ValueId>& in) {
    return add_with_activation(name, Add{}, in, l.activation);
  }
  ValueId add(const std::string& name, const MultiplyLayer&, const std::vector<ValueId>& in) {
    return graph_.add(name, Multiply{}, in);
  }
  ValueId add(const std::string& name, const ConcatLayer&, const std::vector<ValueId>& in) {
    return graph_.add(name, Concat{}, in);
  }
  ValueId add(const std::string& name, const DropoutLayer& l, const std::vector<ValueId>& in) {
    return graph_.add(name, Dropout{l.rate, dropouts_++}, in);
  }
  ValueId add(const std::string& name, const DropPathLayer& l, const std::vector<ValueId>& in) {
    return graph_.add(name, Dropout{l.rate, dropouts_++, true}, in);
  }
  ValueId add(const std::string& name, const FlattenLayer&, const std::vector<ValueId>& in) {
    return graph_.add(name, Flatten{}, in);
  }

  void add_loss() {
    const std::size_t index = linked_.size();
    const bool labels = model_.loss == Loss::cross_entropy;
    ValueId value = values_.back();
    const Shape out = shape(value);
    if (out.rank() != 2) {
      throw LayerError(
          index, fmt::format("the loss: the last layer's output has shape {}; expected [{}]; end with a dense layer",
                             sample_str(out), labels ? "classes" : "values"));
    }
    if (labels && out[1] < 2) {
      throw LayerError(index, fmt::format("the loss: cross_entropy over {} class; expected at least 2 outputs, or "
                                          "mean_squared_error",
                                          out[1]));
    }
    if (graph_.params().empty())
      throw LayerError(index, "the loss: no layer has parameters to train; expected a dense or conv2d layer");
    try {
      if (compute_ != DType::f32) value = graph_.add("output_cast", Cast{DType::f32}, {value});
      const std::int64_t batch = graph_.batch();
      const ValueId target =
          graph_.add_input(InputRole::target, "target",
                           {labels ? DType::i32 : DType::f32, labels ? Shape{batch} : Shape{batch, out[1]}});
      const ValueId weight = graph_.add_input(InputRole::weight, "weight", {DType::f32, Shape{batch}});
      const OpSpec op = labels ? OpSpec(SoftmaxCrossEntropy{model_.label_smoothing}) : OpSpec(MeanSquaredError{});
      graph_.add("loss", op, {value, target, weight});
    } catch (const ShapeError& e) {
      throw LayerError(index, e.what());
    }
  }

  // ---- what layers may be given: said in the words of a configuration, before an op says it in its own ----

  void check_inputs(std::size_t i, const std::vector<ValueId>& in) const {
    const Layer& layer = *linked_[i].layer;
    const Shape& x = shape(in[0]);
    const auto refuse = [&](const std::string& what) {
      throw LayerError(i, fmt::format("layer {}: {}", linked_[i].name, what));
    };
    if ((is<Conv2dLayer>(layer) || is<MaxPool2dLayer>(layer) || is<AveragePool2dLayer>(layer) ||
         is<GlobalAveragePoolLayer>(layer)) &&
        x.rank() != 4)
      refuse(fmt::format("its input has shape {}; expected [channels, height, width]", sample_str(x)));
    if (is<DenseLayer>(layer) && x.rank() != 2)
      refuse(fmt::format("its input has shape {}; expected [features]; put `- flatten` before it", sample_str(x)));
    if ((is<BatchNormLayer>(layer) || is<LayerNormLayer>(layer) || is<ConcatLayer>(layer)) &&
        std::any_of(in.begin(), in.end(),
                    [&](ValueId v) { return graph_.desc(v).layout == Layout::flattened_channels_last; }))
      refuse(
          fmt::format("its input of shape {} is a flattened image; put it before the flatten, or behind a dense "
                      "layer",
                      sample_str(x)));
    if (const auto* conv = std::get_if<Conv2dLayer>(&layer.kind)) check_conv(i, *conv, x);
    if (const auto* pool = std::get_if<MaxPool2dLayer>(&layer.kind)) check_pool(i, pool->size, pool->padding, x);
    if (const auto* pool = std::get_if<AveragePool2dLayer>(&layer.kind)) check_pool(i, pool->size, pool->padding, x);
    if (in.size() > 1) check_joined(i, in);
  }

  void check_conv(std::size_t i, const Conv2dLayer& conv, const Shape& x) const {
    const std::string& name = linked_[i].name;
    if (x[1] % conv.groups != 0 || conv.filters % conv.groups != 0) {
      throw LayerError(i, fmt::format("layer {}: groups {} does not divide its input of shape {} and its {} filters; "
                                      "expected a divisor of {} and {}",
                                      name, conv.groups, sample_str(x), conv.filters, x[1], conv.filters));
    }
    Pair window{}, padding = conv.padding;
    for (std::size_t d = 0; d < 2; ++d) window[d] = (conv.kernel[d] - 1) * conv.dilation[d] + 1;
    for (std::size_t d = 0; d < 2; ++d) {
      if (padding[d] != Conv2dLayer::same) continue;
      if (window[d] % 2 == 0) {
        throw LayerError(i, fmt::format("layer {}: padding: same with a window of [{}, {}] would differ on two sides; "
                                        "expected an odd kernel, or numbers",
                                        name, window[0], window[1]));
      }
      padding[d] = window[d] / 2;
    }
    check_window(i, conv.dilation == Pair{1, 1} ? "kernel" : "dilated kernel", window, padding, x);
  }

  void check_pool(std::size_t i, const Pair& size, const Pair& padding, const Shape& x) const {
    check_window(i, "window", size, padding, x);
    for (std::size_t d = 0; d < 2; ++d) {
      if (2 * padding[d] > size[d])
        throw LayerError(i, fmt::format("layer {}: padding {} is more than half of the window {}", linked_[i].name,
                                        padding[d], size[d]));
    }
  }

  void check_window(std::size_t i, std::string_view what, const Pair& window, const Pair& padding,
                    const Shape& x) const {
    const std::string& name = linked_[i].name;
    for (std::size_t d = 0; d < 2; ++d) {
      if (padding[d] >= window[d]) {
        throw LayerError(
            i, fmt::format("layer {}: padding {} is not smaller than the {} {}", name, padding[d], what, window[d]));
      }
      if (x[static_cast<int>(d) + 2] + 2 * padding[d] < window[d]) {
        throw LayerError(i, fmt::format("layer {}: a {} of [{}, {}] does not fit its input of shape {}", name, what,
                                        window[0], window[1], sample_str(x)));
      }
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

  void check_joined(std::size_t i, const std::vector<ValueId>& in) const {
    const Layer& layer = *linked_[i].layer;
    const auto name_at = [&](std::size_t k) {
      const std::size_t from = linked_[i].from[k];
      return from == the_input ? std::string("input") : linked_[from].name;
    };
    const Shape& a = shape(in[0]);
    for (std::size_t k = 1; k < in.size(); ++k) {
      for (std::size_t j = 0; j < k; ++j) {
        if (memory_of(in[j]) == memory_of(in[k]))
          throw LayerError(i, fmt::format("layer {}: its inputs {} and {} are the same; expected different ones",
                                          linked_[i].name, name_at(j), name_at(k)));
      }
      const Shape& b = shape(in[k]);
      bool fits = a == b && graph_.desc(in[0]).layout == graph_.desc(in[k]).layout;
      std::string_view wanted = "equal ones";
      if (is<MultiplyLayer>(layer)) {
        fits = fits || (a.rank() == 4 && b == Shape{a[0], a[1], 1, 1});
        wanted = "equal ones, or [channels, 1, 1] for the second";
      } else if (is<ConcatLayer>(layer)) {
        fits = a.rank() == b.rank();
        for (int d = 2; fits && d < a.rank(); ++d) fits = a[d] == b[d];
        wanted = "equal ones but for the channels";
      }
      if (!fits) {
        const bool flattened = a == b;
        throw LayerError(i, fmt::format("layer {}: its inputs {} and {} have shapes {} and {}{}; expected {}",
                                        linked_[i].name, name_at(0), name_at(k), sample_str(a), sample_str(b),
                                        flattened ? ", but one is a flattened image" : "", wanted));
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
  if (model.input.size() != 1 && model.input.size() != 3) {
    throw ShapeError(fmt::format("model.input has {} extents; expected [channels, height, width] or [features]",
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
  return Shape(graph.desc(graph.input(InputRole::target)).shape.extents().subspan(1));
}

}  // namespace dtrain::models
