// What planning knows of a graph before it plans a pass: views, who reads what, and what takes a gradient.
// Plain data over a Graph that outlives it; read by plan.cpp and recomputation.cpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "runtime/plan/plan.hpp"

namespace dtrain {

template <class T>
std::size_t idx(T i) {
  return static_cast<std::size_t>(i);
}

/// The node of a step of backward, -1 for other steps.
NodeId backward_node(const Step&) noexcept;
/// The same of a step that gives gradients of parameters, or of inputs.
NodeId params_gradient_node(const Step&) noexcept;
NodeId input_gradient_node(const Step&) noexcept;
/// Backward reads what the node's forward wrote.
bool reads_own_output(const GraphNode&) noexcept;
/// The output is the input's memory.
bool is_view(const GraphNode&) noexcept;

/// What both passes need to know of the graph.
struct Analysis {
  const Graph& graph;
  std::vector<ValueId> root;
  std::vector<bool> reaches_loss;              // by node: a loss reads what it leads to
  std::vector<bool> wants_gradient;            // by root value: something upstream is trained
  std::vector<std::vector<NodeId>> consumers;  // by root value, in node order; views are not consumers

  /// Throws ShapeError where a layer is of no use or, for `training`, the graph cannot be trained.
  Analysis(const Graph&, bool training);
  bool input_gradient(const GraphNode& node, std::size_t i) const {
    return reaches(node) && (node.shape.differentiable >> i & 1u) && wants_gradient[idx(root[idx(node.in[i])])];
  }
  bool any_input_gradient(const GraphNode& node) const {
    for (std::size_t i = 0; i < node.in.size(); ++i)
      if (input_gradient(node, i)) return true;
    return false;
  }
  /// Backward gives gradients of some of its parameters.
  bool trains_parameters(const GraphNode& node) const {
    return reaches(node) &&
           std::any_of(node.params.begin(), node.params.end(), [this](ParamId p) { return !graph.frozen(p); });
  }
  /// There are steps of backward for it.
  bool has_backward(const GraphNode& node) const {
    return !is_view(node) && (trains_parameters(node) || any_input_gradient(node));
  }
  bool reaches(const GraphNode& node) const { return reaches_loss[idx(&node - graph.nodes().data())]; }
  OpUse use_of(NodeId) const;
};

/// Which nodes are computed again before backward needs what they make.
class Recomputation {
 public:
  /// `analysis` outlives it.
  Recomputation(const Analysis& analysis, RecomputePolicy policy);
  /// The steps of backward with their Recompute steps in between.
  std::vector<Step> insert_into(const std::vector<Step>& backward) const;

 private:
  struct Cut;
  bool again(NodeId n) const { return n >= 0 && again_[idx(n)]; }
  void ensure(ValueId, std::vector<bool>& done, std::vector<Step>& steps) const;
  std::vector<Cut> cuts() const;
  void choose_cheap();
  void choose_blocks();

  const Analysis& a_;
  std::vector<bool> again_;
};

}  // namespace dtrain
