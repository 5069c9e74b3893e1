#include "runtime/plan/graph_analysis.hpp"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

namespace dtrain {

NodeId params_gradient_node(const Step& step) noexcept {
  if (const auto* b = std::get_if<BackwardParams>(&step)) return b->node;
  if (const auto* b = std::get_if<Backward>(&step)) return b->node;
  return -1;
}

NodeId input_gradient_node(const Step& step) noexcept {
  if (const auto* b = std::get_if<BackwardData>(&step)) return b->node;
  if (const auto* b = std::get_if<Backward>(&step)) return b->node;
  return -1;
}

NodeId backward_node(const Step& step) noexcept {
  if (const auto* b = std::get_if<BackwardActivation>(&step)) return b->node;
  return std::max(params_gradient_node(step), input_gradient_node(step));
}

bool reads_own_output(const GraphNode& node) noexcept {
  return (node.shape.backward_reads.out & 1u) || node.shape.epilogue;
}

bool is_view(const GraphNode& node) noexcept {
  return std::any_of(node.shape.may_share.begin(), node.shape.may_share.end(),
                     [](const Alias& a) { return a.kind == Alias::Kind::view; });
}

Analysis::Analysis(const Graph& g, bool training)
    : graph(g),
      root(g.values().size()),
      reaches_loss(g.nodes().size()),
      wants_gradient(g.values().size()),
      consumers(g.values().size()) {
  std::iota(root.begin(), root.end(), 0);
  std::vector<bool> leads(g.values().size());  // to a loss
  for (std::size_t n = g.nodes().size(); n-- > 0;) {
    const GraphNode& node = g.nodes()[n];
    reaches_loss[n] =
        node.shape.loss || std::any_of(node.out.begin(), node.out.end(), [&](ValueId v) { return leads[idx(v)]; });
    if (reaches_loss[n])
      for (ValueId v : node.in) leads[idx(v)] = true;
  }
  for (NodeId n = 0; n < static_cast<NodeId>(g.nodes().size()); ++n) {
    const GraphNode& node = g.nodes()[idx(n)];
    bool trained = trains_parameters(node);
    for (std::size_t i = 0; i < node.in.size(); ++i) {
      const ValueId v = root[idx(node.in[i])];
      if ((node.shape.differentiable >> i & 1u) && wants_gradient[idx(v)]) trained = true;
      if (!is_view(node) && (consumers[idx(v)].empty() || consumers[idx(v)].back() != n))
        consumers[idx(v)].push_back(n);
    }
    for (const Alias& a : node.shape.may_share)
      if (a.kind == Alias::Kind::view) root[idx(node.out[a.to])] = root[idx(node.in[a.from])];
    for (ValueId v : node.out) wants_gradient[idx(v)] = trained;
  }
  if (training) {
    if (g.losses().empty()) throw ShapeError("the model has no loss to train with");
    if (g.params().empty()) throw ShapeError("the model has no parameters to train");
    if (g.frozen_count() == g.parameter_count()) throw ShapeError("all parameters of the model are frozen");
  }
  std::vector<bool> given(g.values().size());
  for (const GraphOutput& output : g.outputs()) given[idx(root[idx(output.value)])] = true;
  for (const GraphNode& node : g.nodes()) {
    const bool used = node.shape.loss || is_view(node) || std::any_of(node.out.begin(), node.out.end(), [&](ValueId v) {
                        return given[idx(v)] || !consumers[idx(root[idx(v)])].empty();
                      });
    if (!used) throw ShapeError(fmt::format("layer {}: nothing reads its output", node.name));
  }
  if (!training) return;
  std::vector<bool> trained(g.params().size());
  for (const GraphNode& node : g.nodes())
    for (const ParamId p : node.params)
      if (reaches(node)) trained[idx(p)] = true;
  for (const GraphNode& node : g.nodes())
    for (const ParamId p : node.params)
      if (!trained[idx(p)] && !g.frozen(p))
        throw ShapeError(
            fmt::format("layer {}: no loss reads what it leads to, so that {} cannot be trained; give its "
                        "output a loss, or freeze it with optimizer.groups",
                        node.name, g.params()[idx(p)].name));
}

OpUse Analysis::use_of(NodeId n) const {
  const GraphNode& node = graph.nodes()[idx(n)];
  OpUse use{.input_gradient = any_input_gradient(node),
            .input_gradient_added = false,
            .params_gradient = trains_parameters(node)};
  for (std::size_t i = 0; i < node.in.size(); ++i) {
    if (!input_gradient(node, i)) continue;
    const ValueId read = root[idx(node.in[i])];
    const auto same = [&](ValueId v) { return root[idx(v)] == read; };
    // Backward goes from the last node to the first: what comes later has left its share.
    if (consumers[idx(read)].back() > n || std::count_if(node.in.begin(), node.in.end(), same) > 1)
      use.input_gradient_added = true;
  }
  return use;
}

}  // namespace dtrain
