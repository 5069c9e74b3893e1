// What pools share: forward by own kernels, or as a cuDNN graph where that measures quicker; backward by own kernels.
// A base that owns the plan of its graph.
#pragma once

#include <memory>
#include <vector>

#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/graph_ops.hpp"

namespace dtrain::cuda {

class PoolKernel : public Kernel {
 public:
  Needs needs() const override { return {plan_ ? workspace_need(plan_->workspace()) : 0, 0}; }
  void forward(const OpArgs& a, Stream& stream) override {
    // In evaluation nobody asks which was the largest, which the graph would write.
    const bool train = a.pass.mode == Mode::train, chosen = !a.saved.empty();
    auto* won = chosen && train ? a.saved[0].as<std::uint8_t>() : nullptr;
    if (plan_ && (!graph_wants_won_ || won)) {
      plan_->run({a.in[0].data, a.out[0].data, won}, workspace_of(a), stream.native());
    } else {
      own_forward(at(stream, name_), a.in[0].data, a.out[0].data, won);
    }
  }

 protected:
  PoolKernel(const char* name, const TensorDesc& in) : type_(element_of(in)), name_(name) {}

  /// `won`: of max pooling in training.
  virtual void own_forward(const Launch&, const void* x, void* y, std::uint8_t* won) const = 0;

  void prepare(CudaContext& context, const PoolGraph& graph) {
    const auto elements = [](const std::vector<std::int64_t>& dims) { return Shape(dims).elements(); };
    std::vector<GraphOperand> operands{read_operand(elements(graph.in), graph.dtype),
                                       written_operand(elements(graph.out), graph.dtype)};
    graph_wants_won_ = graph.kind == PoolGraph::Kind::largest;
    if (graph_wants_won_) operands.push_back(written_operand(elements(graph.out), DType::u8));
    plan_ = quicker_graph(context, graph, operands,
                          {0, [this](const GraphOperands& o, std::byte*, void* stream) {
                             own_forward({stream, name_}, o[0], o[1], static_cast<std::uint8_t*>(o[2]));
                           }});
    cudnn_ = context.cudnn;
  }

  Element type_;
  const char* name_;

 private:
  std::shared_ptr<CudnnGraphs> cudnn_;  // outlives the plan
  std::shared_ptr<GraphPlan> plan_;     // null where own kernels have to
  bool graph_wants_won_ = false;
};

}  // namespace dtrain::cuda
