#include "models/model/build.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
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
        family_(family_layers(model.family, inputs_)),
        linked_(link(family_.empty() ? model.layers : family_, inputs_, outputs_, model.family)),
        graph_(batch) {
    if (model.lora.on()) adapted_ = adapted_layers(model.lora, linked_.layers);
  }

  Graph build_generation(const Generation& generation) {
    generation_ = generation;
    const ModelInput& tokens = inputs_[first_input(inputs_)];
    if (outputs_.size() != 1 || !tokens.indices() || tokens.shape.size() != 1)
      throw ShapeError(
          "only a model with one input of tokens, {tokens: ..., vocabulary: ...}, and one output continues "
          "texts");
    return build();
  }

  Graph build() {
    for (const ModelInput& input : inputs_) add_input(input);
    if (generation_)
      lengths_ = graph_.add_input(PortUse::input, Generation::lengths, {DType::i32, Shape{graph_.batch()}});
    if (use_ == BuildFor::training) find_heads();
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
    if (model_.lora.on()) freeze_the_rest();
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
      if (generation_) extents = {graph_.batch(), generation_->positions};
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
    if (const auto capped = capped_.find(i); capped != capped_.end()) {
      if (heads_.contains(capped->second)) return later;
      capped_.erase(capped);
    }
    check_different(i, in);
    check_vocabulary(linked);
    if (linked.tie >= 0) tie_ = weight_of(i, static_cast<std::size_t>(linked.tie));
    if (const auto head = heads_.find(i); head != heads_.end()) {
      if (graph_.desc(in[0]).shape.rank() > 2) {
        head->second = {*dense, in[0], std::exchange(tie_, {})};
        return later;
      }
      heads_.erase(head);
    }
    const ValueId value = adapted(i)
                              ? add_adapted(linked.name, *dense, in[0])
                              : std::visit([&](const auto& op) { return add(linked.name, op, in); }, linked.layer->op);
    tie_.clear();
    return value;
  }

  /// Dense layers over series that a cross-entropy alone reads, with so many classes that it is worth to make them one
  /// op: see LinearCrossEntropy; a soft_cap behind one belongs to it. Predictions have them as layers.
  void find_heads() {
    constexpr std::int64_t many = 1024;
    const Ports ports = ports_of(model_, stored_);
    for (const PortLoss& port : ports.losses) {
      if (port.loss.kind != Loss::cross_entropy) continue;
      const auto output = output_index(port.loss);
      if (!output) continue;
      const std::size_t last = linked_.outputs[*output];
      const Linked& end = linked_.layers[last];
      const bool capped = std::holds_alternative<SoftCap>(end.layer->op) && !end.from[0].input;
      const std::size_t layer = capped ? end.from[0].index : last;
      const auto* dense = std::get_if<Dense>(&linked_.layers[layer].layer->op);
      if (dense == nullptr || dense->activation != Activation::none || dense->units < many || adapted(layer)) continue;
      const auto is_read = [&](std::size_t index) {
        return std::any_of(linked_.layers.begin(), linked_.layers.end(), [&](const Linked& other) {
          if (other.tie == static_cast<int>(index)) return true;
          return (!capped || &other != &end) &&
                 std::any_of(other.from.begin(), other.from.end(),
                             [index](const Source& from) { return !from.input && from.index == index; });
        });
      };
      const bool read = is_read(layer) || is_read(last) ||
                        (capped && std::count(linked_.outputs.begin(), linked_.outputs.end(), layer) > 0);
      // Its weights are one a position, which another loss may not expect.
      const auto others = [&](const PortLoss& other) {
        return &other != &port && (other.weight == port.weight || output_index(other.loss) == output);
      };
      if (read || std::any_of(ports.losses.begin(), ports.losses.end(), others)) continue;
      heads_[layer] = {};
      if (capped) capped_[last] = layer;
    }
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
    if (generation_ && !by_position<Op>)
      throw ShapeError(
          fmt::format("layer {} ({}): a text can be continued only by layers that treat each position by "
                      "itself, and by causal attention",
                      name, op.name()));
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

  ValueId add(const std::string& name, const Attention& op, std::vector<ValueId> in) {
    if (!generation_) return add<Attention>(name, op, in);
    if (in.size() % 2 == 0) in.pop_back();  // documents: a text is one
    in.push_back(lengths_);
    return graph_.add(name, CachedAttention{op, generation_->capacity}, in);
  }
  ValueId add(const std::string& name, Positions op, std::vector<ValueId> in) {
    if (!generation_) return add<Positions>(name, op, in);
    if (op.length == 0) op.length = inputs_[first_input(inputs_)].shape[0];
    in.push_back(lengths_);
    return add<Positions>(name, op, in);
  }

  // ---- adapters: see Lora ----

  bool adapted(std::size_t layer) const { return !adapted_.empty() && adapted_[layer]; }

  /// The activation is behind the sum.
  ValueId add_adapted(const std::string& name, Dense op, ValueId x) {
    const Lora& lora = model_.lora;
    const Activation activation = std::exchange(op.activation, Activation::none);
    const ValueId own = add(name, op, {x});
    const std::int64_t features = graph_.desc(x).channels(), most = std::min(features, op.units);
    if (lora.rank > most)
      throw ConfigError(fmt::format("model.lora.rank: {} for layer {}, whose weight is [{}, {}]; expected at most {}",
                                    lora.rank, name, op.units, features, most));
    if (lora.dropout > 0) x = add(name + ".lora_dropout", Dropout{lora.dropout}, {x});
    const Dense down{.units = lora.rank, .bias = false, .per_position = op.per_position};
    const Dense up{
        .units = op.units, .bias = false, .per_position = op.per_position, .init = {.weight = Init{Init::Kind::zeros}}};
    const ValueId low = add(fmt::format("{}{}", name, lora_a), down, {x});
    const ValueId change = add(fmt::format("{}{}", name, lora_b), up, {low});
    return add(name + ".lora", Add{activation, lora.factor()}, {own, change});
  }

  void freeze_the_rest() {
    std::vector<std::string> names;
    for (const GraphParam& param : graph_.params()) names.push_back(param.name);
    const std::vector<bool> trained = trained_parameters(model_.lora, names);
    for (std::size_t p = 0; p < names.size(); ++p)
      if (!trained[p]) graph_.set_update(static_cast<ParamId>(p), {.frozen = true});
  }

  /// Generation sees a few positions at a time.
  template <class Op>
  static constexpr bool by_position =
      std::is_same_v<Op, Dense> || std::is_same_v<Op, LayerNorm> || std::is_same_v<Op, RmsNorm> ||
      std::is_same_v<Op, Embedding> || std::is_same_v<Op, Positions> || std::is_same_v<Op, Attention> ||
      std::is_same_v<Op, Gated> || std::is_same_v<Op, Activate> || std::is_same_v<Op, SoftCap> ||
      std::is_same_v<Op, Add> || std::is_same_v<Op, Multiply> || std::is_same_v<Op, Concat> ||
      std::is_same_v<Op, Dropout> || std::is_same_v<Op, Cast>;

  // ---- outputs and losses ----

  ValueId output_value(std::size_t output) const { return values_[linked_.outputs[output]]; }
  /// The layer that would be the head of an output: its own, or the one in front of a soft_cap.
  std::size_t head_layer(std::size_t output) const {
    const auto capped = capped_.find(linked_.outputs[output]);
    return capped == capped_.end() ? linked_.outputs[output] : capped->second;
  }
  bool is_head(std::size_t output) const { return heads_.contains(head_layer(output)); }
  /// Of a head, too.
  TensorDesc output_desc(std::size_t output) const {
    if (!is_head(output)) return graph_.desc(output_value(output));
    const Head& head = heads_.at(head_layer(output));
    return infer(head.dense, std::span(&graph_.desc(head.in), 1)).out[0];
  }

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
    for (std::size_t i = 0; i < outputs_.size(); ++i)
      if (!is_head(i)) graph_.add_output(outputs_[i].name, output_value(i));
    if (graph_.params().empty() && heads_.empty())
      throw ShapeError("the loss: no layer has parameters to train; expected a dense or conv2d layer");
    std::vector<ValueId> values(ports.all.size(), -1);
    std::vector<std::size_t> read;
    for (const PortLoss& loss : ports.losses) {
      read.push_back(output_of(loss.loss));
      add_target(ports, loss, output_desc(read.back()), values);
    }
    for (std::size_t k = 0; k < ports.losses.size(); ++k) add_weight(ports, ports.losses[k], read[k], values);
    for (std::size_t k = 0; k < ports.losses.size(); ++k) add_loss(ports.losses[k], read[k], values);
  }

  void add_loss(const PortLoss& port, std::size_t output, const std::vector<ValueId>& values) {
    const ModelLoss& loss = port.loss;
    const ValueId target = values[static_cast<std::size_t>(port.target)];
    const ValueId weight = values[static_cast<std::size_t>(port.weight)];
    const SoftmaxCrossEntropy entropy{loss.label_smoothing, loss.ignore, loss.z_loss};
    if (is_head(output)) {
      const std::size_t layer = head_layer(output);
      const Head& head = heads_.at(layer);
      LinearCrossEntropy op{head.dense, entropy};
      if (const auto* cap = std::get_if<SoftCap>(&linked_.layers[linked_.outputs[output]].layer->op)) op.cap = *cap;
      graph_.add_loss_layer(loss.name, linked_.layers[layer].name, op, {head.in, target, weight}, head.tie, loss.factor,
                            port.counted);
      return;
    }
    const OpSpec op = loss.kind == Loss::cross_entropy ? OpSpec(entropy) : OpSpec(MeanSquaredError{});
    ValueId value = output_value(output);
    if (stored_.mixed) {
      // [N, C] -> [N, 2, C]: the same logits against two labels, whose weights say how much each of them counts.
      value = graph_.add(loss.name + "_row", Flatten{.to_series = true}, {value});
      value = graph_.add(loss.name + "_pair", Upsample{Extents::all(1, 2), Upsample::Mode::nearest}, {value});
    }
    graph_.add_loss(loss.name, op, {value, target, weight}, loss.factor, port.counted);
  }

  /// Nothing where its name is none.
  std::optional<std::size_t> output_index(const ModelLoss& loss) const {
    if (loss.of.empty()) return 0;
    for (std::size_t i = 0; i < outputs_.size(); ++i)
      if (outputs_[i].name == loss.of) return i;
    return std::nullopt;
  }

  /// The index of the output.
  std::size_t output_of(const ModelLoss& loss) const {
    std::vector<std::string> names;
    for (const ModelOutput& output : outputs_) names.push_back(output.name);
    const std::optional<std::size_t> index = output_index(loss);
    if (!index) {
      const std::string near = nearest_name(loss.of, names);
      throw ShapeError(fmt::format("loss {}: of: there is no output {}; expected one of {}{}", loss.name,
                                   json_string(loss.of), fmt::join(names, ", "),
                                   near.empty() ? "" : fmt::format("; did you mean {}?", near)));
    }
    if (loss.of.empty() && outputs_.size() > 1) {
      throw ShapeError(fmt::format("loss {}: of: the model has several outputs; expected one of {}", loss.name,
                                   fmt::join(names, ", ")));
    }
    const TensorDesc out = output_desc(*index);
    const std::string what = loss.name == "loss" ? "the loss" : "loss " + loss.name;
    if (loss.kind == Loss::cross_entropy && out.channels() < 2)
      throw ShapeError(
          fmt::format("{}: cross_entropy over {} class; expected at least 2 outputs, or "
                      "mean_squared_error",
                      what, out.channels()));
    if (!loss.class_weights.empty() && static_cast<std::int64_t>(loss.class_weights.size()) != out.channels())
      throw ShapeError(fmt::format("{}: class_weights: {} weights for {} classes; expected one a class", what,
                                   loss.class_weights.size(), out.channels()));
    return *index;
  }

  /// [batch, positions...] of a value; of mixed samples [batch, 2].
  Shape positions_of(const TensorDesc& value) const {
    if (stored_.mixed) return Shape{graph_.batch(), 2};
    const auto extents = value.shape.extents();
    return Shape(extents.first(extents.size() - 1));
  }

  void add_target(const Ports& ports, const PortLoss& loss, const TensorDesc& out, std::vector<ValueId>& values) {
    const auto index = static_cast<std::size_t>(loss.target);
    const Port& port = ports.all[index];
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
        port.indices
            ? graph_.add_input(PortUse::target, port.name,
                               {index_type(PortUse::target, port.name, out.channels(), port.ignore), positions_of(out)},
                               out.channels())
            : graph_.add_input(PortUse::target, port.name, {DType::f32, out.shape});
  }

  std::size_t index_of(ValueId value) const {
    const auto& inputs = graph_.inputs();
    return static_cast<std::size_t>(
        std::find_if(inputs.begin(), inputs.end(), [value](const GraphInput& i) { return i.value == value; }) -
        inputs.begin());
  }

  void add_weight(const Ports& ports, const PortLoss& loss, std::size_t output, std::vector<ValueId>& values) {
    const auto index = static_cast<std::size_t>(loss.weight);
    if (values[index] >= 0) return;
    const Port& port = ports.all[index];
    const Shape shape = port.by_position || is_head(output) ? positions_of(output_desc(output)) : Shape{graph_.batch()};
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

  /// A layer that its loss computes.
  struct Head {
    Dense dense;
    ValueId in = -1;
    std::vector<ParamId> tie;
  };
  static constexpr ValueId later = -1;
  std::optional<Generation> generation_;
  ValueId lengths_ = -1;

  const ModelConfig& model_;
  DType compute_;
  const StoredPorts& stored_;
  BuildFor use_;
  std::vector<ModelInput> inputs_;
  std::vector<ModelOutput> outputs_;
  std::vector<Layer> family_;
  LinkedModel linked_;
  Graph graph_;
  std::vector<bool> adapted_;                      // by layer; empty: none
  std::vector<ValueId> inputs_read_;               // what layers read of each input
  std::vector<std::optional<ValueId>> flattened_;  // the same as features
  std::vector<ValueId> values_;                    // by layer: what it gives, behind its activation
  std::vector<ParamId> tie_;                       // of the layer that is being added
  std::map<std::size_t, Head> heads_;              // by layer
  std::map<std::size_t, std::size_t> capped_;      // layers soft_cap that belong to a head, and the head's layer
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

Graph build_generation(const ModelConfig& model, std::int64_t batch, DType compute, const Generation& generation) {
  static const StoredPorts none;
  return Builder(model, batch, compute, none, BuildFor::prediction).build_generation(generation);
}

}  // namespace dtrain::models
