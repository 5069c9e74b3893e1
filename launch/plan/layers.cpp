#include "launch/plan/layers.hpp"

#include <utility>
#include <variant>

namespace dtrain::launch {

namespace {

double bytes_of(const std::vector<ValueId>& values, const Graph& graph) {
  double bytes = 0;
  for (const ValueId v : values) bytes += static_cast<double>(graph.desc(v).bytes());
  return bytes;
}

}  // namespace

NodeId node_of(const Step& step) noexcept {
  const auto node = [](const auto& s) {
    if constexpr (requires { s.node; })
      return s.node;
    else
      return NodeId{-1};
  };
  return std::visit(node, step);
}

StepCost cost_of(const Step& step, const Graph& graph) {
  const NodeId n = node_of(step);
  if (n < 0) return {};
  const GraphNode& node = graph.nodes()[static_cast<std::size_t>(n)];
  const double out = bytes_of(node.out, graph);
  // An activation works in place on the gradient of its output; every other step reads one side and writes the other,
  // or does so twice.
  if (std::holds_alternative<BackwardActivation>(step)) return {0, 3 * out};
  double params = 0;
  for (const ParamId p : node.params)
    params += 4.0 * static_cast<double>(graph.params()[static_cast<std::size_t>(p)].shape.elements());
  const double passes = std::holds_alternative<Backward>(step) ? 2 : 1;
  return {passes * node.shape.flops, passes * (out + bytes_of(node.in, graph) + params)};
}

LayerTimes::LayerTimes(const Plan& plan, Device& device)
    : plan_(plan), forward_(plan.graph.nodes().size()), backward_(plan.graph.nodes().size()) {
  if (!device.asynchronous()) return;
  for (std::size_t i = 0; i <= plan.train.steps.size(); ++i) marks_.push_back(device.make_timer());
}

void LayerTimes::ran(const Step& step, double seconds) {
  const NodeId n = node_of(step);
  if (n < 0) return;
  const auto i = static_cast<std::size_t>(n);
  Pass& pass = std::holds_alternative<Forward>(step) ? forward_[i] : backward_[i];
  pass.seconds += seconds;
  if (counted_) return;
  const StepCost cost = cost_of(step, plan_.graph);
  pass.flops += cost.flops;
  pass.bytes += cost.bytes;
}

void LayerTimes::pass_done() {
  for (std::size_t i = 0; i + 1 < marks_.size(); ++i)
    ran(plan_.train.steps[i], marks_[i + 1]->seconds_since(*marks_[i]));
  counted_ = true;
  for (auto* passes : {&forward_, &backward_}) {
    for (Pass& pass : *passes) pass.samples.push_back(std::exchange(pass.seconds, 0));
  }
}

std::vector<LayerRow> LayerTimes::rows() const {
  std::vector<LayerRow> out;
  const auto estimate = [](const Pass& p) { return LayerPass{median_of(p.samples), p.flops, p.bytes}; };
  for (std::size_t i = 0; i < forward_.size(); ++i) {
    const GraphNode& node = plan_.graph.nodes()[i];
    if (forward_[i].flops == 0 && backward_[i].flops == 0 && forward_[i].bytes == 0) continue;
    out.push_back({node.name, std::string(name_of(node.op)), estimate(forward_[i]), estimate(backward_[i])});
  }
  return out;
}

}  // namespace dtrain::launch
