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
#include <fmt/ranges.h>

#include "models/model/link.hpp"
#include "runtime/config/document.hpp"
#include "runtime/device/step_state.hpp"

namespace dtrain::models {

namespace {

class Builder {
 public:
  Builder(const ModelConfig& model, std::int64_t batch, DType compute, const StoredPorts& stored, BuildFor use)
      : model_(model),
        compute_(compute),
        stored_(stored),
        use_(use),
        inputs_(inputs_of(model)),
        outputs_(outputs_of(model)),
        family_(family_layers(model, inputs_)),
        linked_(link(family_.empty() ? model.layers : family_, inputs_, outputs_)),
        graph_(batch) {}

  Graph build() {
    for (const ModelInput& input : inputs_) add_input(input);
    for (std::size_t i = 0; i < linked_.layers.size(); ++i) {
      try {
        values_.push_back(add_layer(i));
      } catch (const LayerError&) {
        throw;
      } catch (const ShapeError& e) {
        throw LayerError(i, e.what());
      }
    }
    try {
      use_ == BuildFor::prediction ? add_outputs() : add_losses();
    } catch (const LayerError&) {
      throw;
    } catch (const ShapeError& e) {
      throw LayerError(linked_.layers.size(), e.what());
    }
    return std::move(graph_);
  }

 private:
  /// The type that is stored, or a wider one that holds all values: those in [0, limit), and the label that is ignored.
  DType index_type(PortUse use, const std::string& port, std::int64_t limit, std::optional<std::int64_t> ignore) const {
    const auto stored = stored_.index_types.find({use, port});
    if (stored == stored_.index_types.end()) return DType::i32;
    const auto holds = [&](std::int64_t most) {
      return limit - 1 <= most && (!ignore || (*ignore >= 0 && *ignore <= most));
    };
    if (stored->second == DType::u8 && holds(255)) return DType::u8;
    return stored->second != DType::i32 && holds(65535) ? DType::u16 : DType::i32;
  }

  void add_input(const ModelInput& input) {
    if (input.indices()) {
      std::vector<std::int64_t> extents{graph_.batch()};
      extents.insert(extents.end(), input.shape.begin(), input.shape.end());
      const TensorDesc desc{index_type(PortUse::input, input.name, input.vocabulary, {}),
                            Shape(std::span<const std::int64_t>(extents))};
      inputs_read_.push_back(graph_.add_input(PortUse::input, input.name, desc, input.vocabulary));
    } else {
      const auto desc = TensorDesc::of_sample(DType::f32, graph_.batch(), input.shape);
      ValueId value = graph_.add_input(PortUse::input, input.name, desc);
      if (compute_ != DType::f32) value = graph_.add(input.name + "_cast", Cast{compute_}, {value});
      inputs_read_.push_back(value);
    }
    flattened_.emplace_back();
  }

  ValueId add_layer(std::size_t i) {
    const Linked& linked = linked_.layers[i];
    std::vector<ValueId> in;
    for (const Source& from : linked.from) in.push_back(from.input ? inputs_read_[from.index] : values_[from.index]);
    const auto* dense = std::get_if<Dense>(&linked.layer->op);
    // A dense layer may see the whole image: the flatten in between changes nothing but the shape.
    if (dense != nullptr && !dense->per_position && linked.from[0].input && graph_.desc(in[0]).shape.rank() > 3)
      in[0] = flattened_input(linked.from[0].index);
    check_different(i, in);
    check_vocabulary(linked);
    if (linked.tie >= 0) tie_ = weight_of(i, static_cast<std::size_t>(linked.tie));
    const ValueId value = std::visit([&](const auto& op) { return add(linked.name, op, in); }, linked.layer->op);
    tie_.clear();
    return value;
  }

  ValueId flattened_input(std::size_t input) {
    std::optional<ValueId>& flattened = flattened_[input];
    if (!flattened) flattened = graph_.add(inputs_[input].name + "_flatten", Flatten{}, {inputs_read_[input]});
    return *flattened;
  }

  /// An embedding has a row for every value that its input may have.
  void check_vocabulary(const Linked& linked) const {
    const auto* embedding = std::get_if<Embedding>(&linked.layer->op);
    if (embedding == nullptr || !linked.from[0].input) return;
    const ModelInput& input = inputs_[linked.from[0].index];
    if (input.indices() && input.vocabulary > embedding->vocabulary)
      throw ShapeError(fmt::format("layer {}: its vocabulary is {}, but input {} has one of {}; expected the same",
                                   linked.name, embedding->vocabulary, input.name, input.vocabulary));
  }

  /// The first parameter of a layer before this one.
  std::vector<ParamId> weight_of(std::size_t i, std::size_t other) const {
    const std::string& name = linked_.layers[other].name;
    for (const GraphNode& node : graph_.nodes())
      if (node.name == name && !node.params.empty()) return {node.params[0]};
    throw LayerError(i, fmt::format("layer {}: tie: layer {} has no weight; expected a dense or embedding layer",
                                    linked_.layers[i].name, name));
  }

  // ---- what layers become ----

  /// An op may apply some activations inside; the others become a node behind it.
  template <class Op>
  ValueId add(const std::string& name, Op op, const std::vector<ValueId>& in) {
    Activation activation = Activation::none;
    if constexpr (requires { op.activation; })
      if (!derivative_of_output(op.activation)) activation = std::exchange(op.activation, Activation::none);
    if constexpr (requires { op.dtype; }) op.dtype = compute_;
    if constexpr (requires { op.id; }) op.id = draws_++;
    const ValueId value = graph_.add(name, op, in, tie_);
    if (activation == Activation::none) return value;
    return graph_.add(fmt::format("{}_{}", name, name_of(activation)), Activate{activation}, {value});
  }
  ValueId add(const std::string& name, const BatchNorm& op, const std::vector<ValueId>& in) {
    if (!model_.sync_batch_norm) return add<BatchNorm>(name, op, in);
    const ValueId own = graph_.add(name + "_moments", BatchMoments{}, in);
    const ValueId sum = graph_.add(name + "_sum", SumOverRanks{}, {own});
    return add(name, BatchNormalize{op.epsilon, op.momentum, op.activation, op.initial_weight}, {in[0], sum});
  }

  // ---- outputs and losses ----

  ValueId output_value(std::size_t output) const { return values_[linked_.outputs[output]]; }

  /// Predictions are read as f32.
  void add_outputs() {
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      ValueId value = output_value(i);
      if (graph_.desc(value).dtype != DType::f32)
        value = graph_.add(outputs_[i].name + "_cast", Cast{DType::f32}, {value});
      graph_.add_output(outputs_[i].name, value);
    }
  }

  void add_losses() {
    const Ports ports = ports_of(model_, stored_);
    for (std::size_t i = 0; i < outputs_.size(); ++i) graph_.add_output(outputs_[i].name, output_value(i));
    if (graph_.params().empty())
      throw ShapeError("the loss: no layer has parameters to train; expected a dense or conv2d layer");
    std::vector<ValueId> values(ports.all.size(), -1);
    std::vector<ValueId> read;
    for (const PortLoss& loss : ports.losses) {
      read.push_back(output_of(loss.loss));
      add_target(ports, loss, read.back(), values);
    }
    for (std::size_t k = 0; k < ports.losses.size(); ++k) add_weight(ports, ports.losses[k], read[k], values);
    for (std::size_t k = 0; k < ports.losses.size(); ++k) {
      const PortLoss& port = ports.losses[k];
      const ModelLoss& loss = port.loss;
      const bool labels = loss.kind == Loss::cross_entropy;
      const OpSpec op =
          labels ? OpSpec(SoftmaxCrossEntropy{loss.label_smoothing, loss.ignore}) : OpSpec(MeanSquaredError{});
      graph_.add_loss(
          loss.name, op,
          {read[k], values[static_cast<std::size_t>(port.target)], values[static_cast<std::size_t>(port.weight)]},
          loss.factor, port.counted);
    }
  }

  ValueId output_of(const ModelLoss& loss) const {
    std::vector<std::string> names;
    for (const ModelOutput& output : outputs_) names.push_back(output.name);
    std::size_t index = 0;
    if (!loss.of.empty()) {
      const auto it = std::find(names.begin(), names.end(), loss.of);
      if (it == names.end()) {
        const std::string near = nearest_name(loss.of, names);
        throw ShapeError(fmt::format("loss {}: of: there is no output {}; expected one of {}{}", loss.name,
                                     json_string(loss.of), fmt::join(names, ", "),
                                     near.empty() ? "" : fmt::format("; did you mean {}?", near)));
      }
      index = static_cast<std::size_t>(it - names.begin());
    } else if (outputs_.size() > 1) {
      throw ShapeError(fmt::format("loss {}: of: the model has several outputs; expected one of {}", loss.name,
                                   fmt::join(names, ", ")));
    }
    const ValueId value = output_value(index);
    const TensorDesc& out = graph_.desc(value);
    const std::string what = loss.name == "loss" ? "the loss" : "loss " + loss.name;
    if (loss.kind == Loss::cross_entropy && out.channels() < 2)
      throw ShapeError(
          fmt::format("{}: cross_entropy over {} class; expected at least 2 outputs, or "
                      "mean_squared_error",
                      what, out.channels()));
    if (!loss.class_weights.empty() && static_cast<std::int64_t>(loss.class_weights.size()) != out.channels())
      throw ShapeError(fmt::format("{}: class_weights: {} weights for {} classes; expected one a class", what,
                                   loss.class_weights.size(), out.channels()));
    return value;
  }

  /// [batch, positions...] of a value.
  Shape positions_of(ValueId value) const {
    const auto extents = graph_.desc(value).shape.extents();
    return Shape(extents.first(extents.size() - 1));
  }

  void add_target(const Ports& ports, const PortLoss& loss, ValueId output, std::vector<ValueId>& values) {
    const auto index = static_cast<std::size_t>(loss.target);
    const Port& port = ports.all[index];
    const TensorDesc& out = graph_.desc(output);
    if (values[index] >= 0) {
      const std::int64_t limit = graph_.inputs()[index_of(values[index])].limit;
      if (port.indices && limit != out.channels())
        throw ShapeError(
            fmt::format("loss {}: its output has {} classes, but another loss reads the target {} with {}; "
                        "expected the same",
                        loss.loss.name, out.channels(), port.name, limit));
      return;
    }
    values[index] =
        port.indices ? graph_.add_input(
                           PortUse::target, port.name,
                           {index_type(PortUse::target, port.name, out.channels(), port.ignore), positions_of(output)},
                           out.channels())
                     : graph_.add_input(PortUse::target, port.name, {DType::f32, out.shape});
  }

  std::size_t index_of(ValueId value) const {
    const auto& inputs = graph_.inputs();
    return static_cast<std::size_t>(
        std::find_if(inputs.begin(), inputs.end(), [value](const GraphInput& i) { return i.value == value; }) -
        inputs.begin());
  }

  void add_weight(const Ports& ports, const PortLoss& loss, ValueId output, std::vector<ValueId>& values) {
    const auto index = static_cast<std::size_t>(loss.weight);
    if (values[index] >= 0) return;
    const Port& port = ports.all[index];
    const Shape shape = port.by_position ? positions_of(output) : Shape{graph_.batch()};
    values[index] = graph_.add_input(PortUse::weight, port.name, {DType::f32, shape});
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
                                          linked_.layers[i].name, graph_.values()[static_cast<std::size_t>(in[j])].name,
                                          graph_.values()[static_cast<std::size_t>(in[k])].name));
      }
    }
  }

  const ModelConfig& model_;
  DType compute_;
  const StoredPorts& stored_;
  BuildFor use_;
  std::vector<ModelInput> inputs_;
  std::vector<ModelOutput> outputs_;
  std::vector<Layer> family_;
  LinkedModel linked_;
  Graph graph_;
  std::vector<ValueId> inputs_read_;               // what layers read of each input
  std::vector<std::optional<ValueId>> flattened_;  // the same as features
  std::vector<ValueId> values_;                    // by layer: what it gives, behind its activation
  std::vector<ParamId> tie_;                       // of the layer that is being added
  std::uint32_t draws_ = 0;                        // layers so far that draw
};

void check_input(const ModelInput& input, const std::string& what) {
  const std::size_t most = input.indices() ? 3 : 4;
  if (input.shape.size() > most || (input.shape.empty() && !input.indices())) {
    throw ShapeError(
        input.indices()
            ? fmt::format("{} has {} extents; expected at most 3 extents of index values", what, input.shape.size())
            : fmt::format("{} has {} extents; expected [features], [length, channels], [channels, height, "
                          "width] or [channels, depth, height, width]",
                          what, input.shape.size()));
  }
  double elements = 1;
  for (const std::int64_t extent : input.shape) elements *= static_cast<double>(extent);
  if (!(elements >= 1 && elements <= 1e9)) {
    throw ShapeError(fmt::format("{} {} is not possible; expected 1 to 1e9 values a sample", what,
                                 Shape(std::span<const std::int64_t>(input.shape)).str()));
  }
}

}  // namespace

Graph build(const ModelConfig& model, std::int64_t batch, DType compute, const StoredPorts& stored, BuildFor use) {
  for (const ModelInput& input : model.inputs) check_input(input, "model.inputs." + input.name);
  if (model.inputs.empty()) check_input({"input", model.input, 0}, "model.input");
  return Builder(model, batch, compute, stored, use).build();
}

}  // namespace dtrain::models
