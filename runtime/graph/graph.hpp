// A model as data: named nodes of OpSpecs over values, built by models/ and planned by runtime/.
// Plain values, no device; a Graph is immutable once planned.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/ops/op.hpp"

namespace dtrain {

using ValueId = std::int32_t;
using NodeId = std::int32_t;
using ParamId = std::int32_t;
using StateId = std::int32_t;

/// What an input of the graph is for: layers read inputs, losses read targets and weights.
enum class PortUse : std::uint8_t { input, target, weight };

/// A named value that is filled before each pass, with the batch as outermost extent.
struct GraphInput {
  std::string name;
  PortUse use = PortUse::input;
  ValueId value = -1;
  std::int64_t limit = 0;  // of index values: they lie in [0, limit); 0: not known
};

/// A named value that predictions are made of.
struct GraphOutput {
  std::string name;
  ValueId value = -1;
};

/// A loss that the gradients come from. The step's loss is the sum over these of factor * sum / weight of the loss.
struct GraphLoss {
  std::string name;  // and that of the node; with "_loss" behind it where a layer has that name
  NodeId node = -1;
  double factor = 1;
  bool counted = false;  // some positions are ignored or weigh other than 1: its sum of weights is another each step
};

struct GraphValue {
  std::string name;
  TensorDesc desc;       // for the graph's micro batch
  NodeId producer = -1;  // -1: an input of the graph
};

struct GraphNode {
  std::string name;  // the layer's name, unique: "conv2d_1", "dense_2"
  OpSpec op;
  OpShape shape;  // of the graph's micro batch
  std::vector<ValueId> in, out;
  std::vector<ParamId> params;
  std::vector<StateId> states;
};

/// How a parameter is updated, where that is not as the optimizer's rule says; see ParameterGroup.
struct ParamUpdate {
  bool frozen = false;                      // keeps its value: no gradient, no optimizer state
  double learning_rate_factor = 1;          // times the rate of the step
  std::optional<double> weight_decay = {};  // in place of the rule's
  bool operator==(const ParamUpdate&) const = default;
};

struct GraphParam {
  std::string name;  // "dense_2.weight"
  Shape shape;       // canonical
  Init init;
  bool decay = true;  // weight decay applies (not to biases and norms)
  ParamUpdate update = {};
  std::vector<std::int64_t> matrices = {};  // rows of the matrices that Muon makes orthogonal, one below another
};

struct GraphState {
  std::string name;  // "batch_norm_1.running_mean"
  Shape shape;
  float initial = 0;
  double momentum = 0.1;
  bool kept = true;
};

/// Nodes are in an order in which each input is made before it is read.
class Graph {
 public:
  /// `batch`: samples of one micro batch. Shape of a sample as users write it: [C, H, W] or [features].
  explicit Graph(std::int64_t batch) : batch_(batch) {}

  /// Throws ShapeError where another input of that use has the name.
  ValueId add_input(PortUse use, std::string name, TensorDesc desc, std::int64_t limit = 0);
  /// Infers shapes and creates parameters `name.weight`, ... and kept states; throws ShapeError that names the layer.
  /// `shared_params`: reuse these parameters instead of creating own ones (tied weights).
  ValueId add(std::string name, OpSpec op, std::vector<ValueId> in, const std::vector<ParamId>& shared_params = {});

  /// `op`: a loss over {value, target, weight}. Throws ShapeError that names the loss.
  void add_loss(std::string name, OpSpec op, std::vector<ValueId> in, double factor = 1, bool counted = false);
  /// A loss that is a layer too, with parameters that have the layer's name.
  void add_loss_layer(std::string name, std::string layer, OpSpec op, std::vector<ValueId> in,
                      const std::vector<ParamId>& shared_params, double factor, bool counted);
  void add_output(std::string name, ValueId value) { outputs_.push_back({std::move(name), value}); }

  /// Before the graph is planned.
  void set_update(ParamId id, const ParamUpdate& update) { params_.at(static_cast<std::size_t>(id)).update = update; }

  /// Before the graph is planned: in training the batch norm of this name normalizes by its running statistics, as in
  /// evaluation, and leaves them as they are. False: no batch norm has the name.
  bool freeze_statistics(std::string_view node);

  /// Before the graph is planned; the rows add up to the parameter's first extent.
  void set_matrices(ParamId id, std::vector<std::int64_t> rows) {
    params_.at(static_cast<std::size_t>(id)).matrices = std::move(rows);
  }

  std::int64_t batch() const noexcept { return batch_; }
  const std::vector<GraphNode>& nodes() const noexcept { return nodes_; }
  const std::vector<GraphValue>& values() const noexcept { return values_; }
  const std::vector<GraphParam>& params() const noexcept { return params_; }
  const std::vector<GraphState>& states() const noexcept { return states_; }
  const std::vector<GraphInput>& inputs() const noexcept { return inputs_; }
  const std::vector<GraphOutput>& outputs() const noexcept { return outputs_; }
  /// At most max_losses, in the order of their nodes.
  const std::vector<GraphLoss>& losses() const noexcept { return losses_; }
  /// Which of losses() the node is; -1: none.
  int loss_index(NodeId) const noexcept;
  LossRule loss_rule() const noexcept;
  /// Of a sample, which a loss compares: its sum of weights over so many samples is this times them if it is not
  /// counted.
  std::int64_t positions_of(const GraphLoss&) const;
  /// The first of inputs() with the name. Throws BugError where none has it.
  std::size_t input_index(std::string_view name) const;
  const TensorDesc& desc(ValueId v) const { return values_[static_cast<std::size_t>(v)].desc; }
  std::int64_t parameter_count() const noexcept;
  /// Of those that are frozen.
  std::int64_t frozen_count() const noexcept;
  bool frozen(ParamId id) const { return params_[static_cast<std::size_t>(id)].update.frozen; }

 private:
  /// Its values, which nobody reads, go with it.
  void erase(NodeId);

  std::int64_t batch_;
  std::vector<GraphNode> nodes_;
  std::vector<GraphValue> values_;
  std::vector<GraphParam> params_;
  std::vector<GraphState> states_;
  std::vector<GraphInput> inputs_;
  std::vector<GraphOutput> outputs_;
  std::vector<GraphLoss> losses_;
};

}  // namespace dtrain
