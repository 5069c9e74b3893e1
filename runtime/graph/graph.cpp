#include "runtime/graph/graph.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace dtrain {

ValueId Graph::add_input(PortUse use, std::string name, TensorDesc desc, std::int64_t limit) {
  for (const GraphInput& input : inputs_)
    if (input.name == name && input.use == use)
      throw ShapeError(fmt::format("input {}: the name is taken by another input", name));
  const auto value = static_cast<ValueId>(values_.size());
  values_.push_back({name, desc, -1});
  inputs_.push_back({std::move(name), use, value, limit});
  return value;
}

std::size_t Graph::input_index(std::string_view name) const {
  for (std::size_t i = 0; i < inputs_.size(); ++i)
    if (inputs_[i].name == name) return i;
  throw BugError(fmt::format("the graph has no input {}", name));
}

ValueId Graph::add(std::string name, OpSpec op, std::vector<ValueId> in, const std::vector<ParamId>& shared_params) {
  for (const auto& node : nodes_)
    if (node.name == name) throw ShapeError(fmt::format("layer {}: the name is taken by another layer", name));
  std::vector<TensorDesc> descs;
  for (ValueId v : in) descs.push_back(desc(v));
  GraphNode node{std::move(name), op, {}, std::move(in), {}, {}, {}};
  try {
    node.shape = infer(node.op, descs);
  } catch (const ShapeError& e) {
    std::vector<std::string> names;
    for (ValueId v : node.in) names.push_back(values_[static_cast<std::size_t>(v)].name);
    throw ShapeError(names.size() < 2
                         ? fmt::format("layer {}: {}", node.name, e.what())
                         : fmt::format("layer {} (of {}): {}", node.name, fmt::join(names, ", "), e.what()));
  }
  const auto id = static_cast<NodeId>(nodes_.size());
  for (std::size_t i = 0; i < node.shape.params.size(); ++i) {
    const ParamDesc& p = node.shape.params[i];
    if (i < shared_params.size()) {
      const GraphParam& shared = params_.at(static_cast<std::size_t>(shared_params[i]));
      if (shared.shape != p.desc.shape) {
        throw ShapeError(fmt::format("layer {}: shares {} of shape {} but needs {}", node.name, shared.name,
                                     shared.shape.str(), p.desc.shape.str()));
      }
      node.params.push_back(shared_params[i]);
    } else {
      node.params.push_back(static_cast<ParamId>(params_.size()));
      params_.push_back({fmt::format("{}.{}", node.name, p.name), p.desc.shape, p.init, p.decay, {}});
    }
  }
  for (const StateDesc& s : node.shape.state) {
    node.states.push_back(static_cast<StateId>(states_.size()));
    states_.push_back({fmt::format("{}.{}", node.name, s.name), s.desc.shape, s.initial, s.momentum, s.kept});
  }
  for (std::size_t i = 0; i < node.shape.out.size(); ++i) {
    node.out.push_back(static_cast<ValueId>(values_.size()));
    values_.push_back({i == 0 ? node.name : fmt::format("{}.{}", node.name, i), node.shape.out[i], id});
  }
  if (node.shape.loss) {
    if (losses_.size() == max_losses)
      throw ShapeError(fmt::format("loss {}: the model has {} losses before it; expected at most {}", node.name,
                                   losses_.size(), max_losses));
    losses_.push_back({node.name, id});
  }
  nodes_.push_back(std::move(node));
  return nodes_.back().out.at(0);
}

void Graph::add_loss(std::string name, OpSpec op, std::vector<ValueId> in, double factor, bool counted) {
  const bool taken = std::any_of(nodes_.begin(), nodes_.end(), [&name](const auto& node) { return node.name == name; });
  std::string layer = taken ? name + "_loss" : name;
  add_loss_layer(std::move(name), std::move(layer), std::move(op), std::move(in), {}, factor, counted);
}

void Graph::add_loss_layer(std::string name, std::string layer, OpSpec op, std::vector<ValueId> in,
                           const std::vector<ParamId>& shared_params, double factor, bool counted) {
  const std::size_t before = losses_.size();
  add(std::move(layer), std::move(op), std::move(in), shared_params);
  if (losses_.size() == before) throw BugError(fmt::format("{} is no loss", name_of(nodes_.back().op)));
  losses_.back().name = std::move(name);
  losses_.back().factor = factor;
  losses_.back().counted = counted;
}

bool Graph::freeze_statistics(std::string_view name) {
  const auto at = std::find_if(nodes_.begin(), nodes_.end(), [&](const GraphNode& node) { return node.name == name; });
  if (at == nodes_.end()) return false;
  const auto* own = std::get_if<BatchNorm>(&at->op);
  const auto* of_all_ranks = std::get_if<BatchNormalize>(&at->op);
  if (own == nullptr && of_all_ranks == nullptr) return false;
  BatchNorm op = own != nullptr ? *own : of_all_ranks->settings();
  op.frozen_statistics = true;
  // The sum over ranks and the moments are read no more.
  std::vector<NodeId> unread;
  if (of_all_ranks != nullptr)
    for (ValueId v = at->in[1]; v >= 0 && v != at->in[0];) {
      unread.push_back(values_[static_cast<std::size_t>(v)].producer);
      v = nodes_[static_cast<std::size_t>(unread.back())].in[0];
    }
  at->in.resize(1);
  at->shape = op.infer(std::vector<TensorDesc>{desc(at->in[0])});
  at->op = op;
  for (std::size_t i = 0; i < at->states.size(); ++i)
    states_[static_cast<std::size_t>(at->states[i])].momentum = at->shape.state[i].momentum;
  for (const NodeId node : unread) erase(node);  // the last one first
  return true;
}

void Graph::erase(NodeId id) {
  const auto gone = static_cast<std::size_t>(id);
  const std::vector<ValueId> values = nodes_[gone].out;
  nodes_.erase(nodes_.begin() + id);
  for (GraphLoss& loss : losses_) loss.node -= loss.node > id ? 1 : 0;
  for (GraphValue& value : values_) value.producer -= value.producer > id ? 1 : 0;
  for (auto v = values.rbegin(); v != values.rend(); ++v) {
    values_.erase(values_.begin() + *v);
    const auto moved = [gone = *v](ValueId& value) { value -= value > gone ? 1 : 0; };
    for (GraphNode& node : nodes_) {
      std::for_each(node.in.begin(), node.in.end(), moved);
      std::for_each(node.out.begin(), node.out.end(), moved);
    }
    for (GraphInput& input : inputs_) moved(input.value);
    for (GraphOutput& output : outputs_) moved(output.value);
  }
}

int Graph::loss_index(NodeId node) const noexcept {
  for (std::size_t k = 0; k < losses_.size(); ++k)
    if (losses_[k].node == node) return static_cast<int>(k);
  return -1;
}

LossRule Graph::loss_rule() const noexcept {
  LossRule rule;
  rule.losses = static_cast<std::uint32_t>(losses_.size());
  for (std::size_t k = 0; k < losses_.size(); ++k) {
    rule.factors[k] = losses_[k].factor;
    rule.positions[k] = static_cast<double>(positions_of(losses_[k]));
    if (losses_[k].counted) rule.counted |= 1u << k;
  }
  return rule;
}

std::int64_t Graph::positions_of(const GraphLoss& loss) const {
  const TensorDesc& value = desc(nodes_[static_cast<std::size_t>(loss.node)].in.at(0));
  return value.elements() / (value.batch() * value.channels());
}

std::int64_t Graph::parameter_count() const noexcept {
  std::int64_t n = 0;
  for (const auto& p : params_) n += p.shape.elements();
  return n;
}

std::int64_t Graph::frozen_count() const noexcept {
  std::int64_t n = 0;
  for (const auto& p : params_) n += p.update.frozen ? p.shape.elements() : 0;
  return n;
}

}  // namespace dtrain
