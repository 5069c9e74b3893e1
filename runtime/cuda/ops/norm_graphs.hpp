// Norms as cuDNN graphs where those measure quicker than own kernels. A NormGraphs belongs to the kernel of a norm, and
// owns the plans; it runs on the stream that the kernel is given.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "runtime/cuda/library/tuner.hpp"
#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/cast.hpp"
#include "runtime/cuda/ops/graph_ops.hpp"

namespace dtrain::cuda {

inline float* floats(void* p) {
  return static_cast<float*>(p);
}

/// The graphs of a norm, those that are quicker than own kernels, and the workspace they need.
class NormGraphs {
 public:
  /// `statistics`: elements of mean and of 1 / standard deviation. `behind` (or empty): see OwnKernels.
  void prepare_forward(CudaContext& context, NormGraph graph, const TensorDesc& in, std::int64_t statistics,
                       const OpUse& use, const OwnKernels& own) {
    if (context.options.own_norms || !use.trained) return;
    graph.nondeterministic = context.options.nondeterministic;
    const GraphOperand x = read_operand(in.elements(), in.dtype), y = written_operand(in.elements(), in.dtype);
    const GraphOperand line = read_operand(graph.shape[1], DType::f32), kept = written_operand(statistics, DType::f32);
    std::vector<GraphOperand> operands{x, line, line, y, kept, kept};
    if (own.behind) operands.insert(operands.end(), 2, kept);
    forward_ = quicker_graph(context, graph, operands, own);
    cudnn_ = context.cudnn;
    if (forward_) workspace_ = std::max(workspace_, forward_->workspace());
  }
  void prepare_backward(CudaContext& context, NormGraph graph, const TensorDesc& in, std::int64_t statistics,
                        const OpUse& use, OwnKernels own) {
    if (context.options.own_norms || !use.input_gradient) return;  // a gradient that the graph always gives
    graph.nondeterministic = context.options.nondeterministic;
    const GraphOperand x = read_operand(in.elements(), in.dtype), dx = written_operand(in.elements(), in.dtype);
    const GraphOperand line = read_operand(graph.shape[1], DType::f32), kept = read_operand(statistics, DType::f32);
    const GraphOperand gradient = written_operand(graph.shape[1], DType::f32);
    std::vector<GraphOperand> operands{x, x, line, kept, kept, dx, gradient, gradient, line};
    if (use.input_gradient_added) {
      operands.push_back(x);  // where the graph's gradient goes by a pass of its own
      own.variant = " added";
      own.behind = [element = element_of(in), n = in.elements()](const GraphOperands& o, std::byte*, void* stream) {
        cast({stream, "a norm"}, element, element, o[5], {o[9], Put::overwrite}, n);
      };
    }
    backward_ = quicker_graph(context, graph, operands, own);
    cudnn_ = context.cudnn;
    if (!backward_) return;
    Offsets at;
    at.place(backward_->workspace());
    for (std::size_t& place : params_at_) place = at.place(bytes_of(graph.shape[1], DType::f32));
    if (use.input_gradient_added) input_at_ = at.place(bytes_of(in.elements(), in.dtype));
    adds_ = use.input_gradient_added;
    workspace_ = std::max(workspace_, at.end());
  }

  /// Own kernels need so much.
  Needs needs(std::size_t own) const { return {std::max(own, workspace_need(workspace_)), 0, backward_ != nullptr}; }

  /// False where own kernels have to.
  bool forward(const GraphOperands& operands, const OpArgs& a, Stream& stream) const {
    if (!forward_ || a.pass.mode != Mode::train) return false;
    forward_->run(operands, workspace_of(a), stream.native());
    return true;
  }
  /// The same. `operands`: without results. What is to be added to a gradient goes by way of the workspace.
  bool backward(GraphOperands operands, const OpArgs& a, const OpGrads& g, const Launch& where, Element element) const {
    if (!backward_ || !wanted(g.in, 0) || !wanted(g.params, 0) || !wanted(g.params, 1)) return false;
    std::byte* const workspace = workspace_of(a);
    const auto at_once = [&](const GradSlot& slot) {
      return slot.write == Write::overwrite && slot.grad.data != g.out[0].data;
    };
    if (!at_once(g.in[0]) && !adds_) return false;
    operands[5] = at_once(g.in[0]) ? g.in[0].grad.data : workspace + input_at_;
    for (std::size_t p = 0; p < 2; ++p)
      operands.at(6 + p) = at_once(g.params[p]) ? g.params[p].grad.data : workspace + params_at_.at(p);
    backward_->run(operands, workspace, where.stream);
    if (!at_once(g.in[0])) cast(where, element, element, operands[5], slot_of(g.in[0]), g.in[0].grad.elements());
    for (std::size_t p = 0; p < 2; ++p)
      if (!at_once(g.params[p]))
        cast(where, Element::f32, Element::f32, operands.at(6 + p), slot_of(g.params[p]), g.params[p].grad.elements());
    return true;
  }

 private:
  std::shared_ptr<CudnnGraphs> cudnn_;  // outlives the plans
  std::shared_ptr<GraphPlan> forward_, backward_;
  std::size_t workspace_ = 0, input_at_ = 0;
  std::array<std::size_t, 2> params_at_{};
  bool adds_ = false;  // there is room for a gradient of the input that is to be added
};

}  // namespace dtrain::cuda
