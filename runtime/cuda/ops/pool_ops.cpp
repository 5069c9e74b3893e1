// Pooling over windows and over whole images: forward by own kernels, or as cuDNN graphs where those measure quicker;
// backward by own kernels.
#include <memory>

#include "runtime/cuda/ops/graph_ops.hpp"
#include "runtime/cuda/ops/layer_support.hpp"
#include "runtime/ops/pool.hpp"

namespace dtrain::cuda {

namespace {

/// The graph of a pool where it is quicker than own kernels.
class QuickerPool {
 public:
  void prepare(CudaContext& context, const PoolGraph& graph, const OwnKernels::Run& own) {
    const auto elements = [](const std::array<std::int64_t, 4>& d) { return d[0] * d[1] * d[2] * d[3]; };
    std::vector<GraphOperand> operands{read_operand(elements(graph.in), graph.dtype),
                                       written_operand(elements(graph.out), graph.dtype)};
    if (graph.kind == PoolGraph::Kind::largest) operands.push_back(written_operand(elements(graph.out), DType::u8));
    plan_ = quicker_graph(context, graph, operands, {0, own});
    cudnn_ = context.cudnn;
  }
  Needs needs() const { return {plan_ ? workspace_need(plan_->workspace()) : 0, 0}; }
  /// False where own kernels have to.
  bool run(const OpArgs& a, void* which, Stream& stream) const {
    if (!plan_) return false;
    plan_->run({a.in[0].data, a.out[0].data, which}, workspace_of(a), stream.native());
    return true;
  }

 private:
  std::shared_ptr<CudnnGraphs> cudnn_;  // outlives the plan
  std::shared_ptr<GraphPlan> plan_;
};

class MaxPoolKernel final : public Kernel {
 public:
  MaxPoolKernel(CudaContext& context, const MaxPool& op, const TensorDesc& in, const OpUse& use)
      : type_(element_of(in)), grid_(window_grid(op, in)) {
    if (const auto graph = pool_graph(op, in); graph && use.trained)  // in evaluation nobody asks which was the largest
      graph_.prepare(context, *graph, [this](const GraphOperands& o, std::byte*, void* stream) {
        max_pool({stream, name}, type_, grid_, o[0], o[1], static_cast<std::uint8_t*>(o[2]));
      });
  }
  Needs needs() const override { return graph_.needs(); }
  void forward(const OpArgs& a, Stream& stream) override {
    const bool train = a.pass.mode == Mode::train;
    if (train && graph_.run(a, a.saved[0].data, stream)) return;
    max_pool(at(stream, name), type_, grid_, a.in[0].data, a.out[0].data,
             train ? a.saved[0].as<std::uint8_t>() : nullptr);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0]))
      max_pool_gradient(at(stream, name), type_, grid_, a.saved[0].as<const std::uint8_t>(), g.out[0].data,
                        slot_of(g.in[0]));
  }

 private:
  static constexpr const char* name = "maxpool";
  Element type_;
  WindowGrid grid_;
  QuickerPool graph_;
};

class AveragePoolKernel final : public Kernel {
 public:
  AveragePoolKernel(CudaContext& context, const AveragePool& op, const TensorDesc& in)
      : type_(element_of(in)), grid_(window_grid(op, in)), count_padding_(op.count_padding) {
    graph_.prepare(context, pool_graph(op, in), [this](const GraphOperands& o, std::byte*, void* stream) {
      average_pool({stream, name}, type_, grid_, count_padding_, o[0], o[1]);
    });
  }
  Needs needs() const override { return graph_.needs(); }
  void forward(const OpArgs& a, Stream& stream) override {
    if (graph_.run(a, nullptr, stream)) return;
    average_pool(at(stream, name), type_, grid_, count_padding_, a.in[0].data, a.out[0].data);
  }
  void backward(const OpArgs&, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0]))
      average_pool_gradient(at(stream, name), type_, grid_, count_padding_, g.out[0].data, slot_of(g.in[0]));
  }

 private:
  static constexpr const char* name = "avgpool";
  Element type_;
  WindowGrid grid_;
  bool count_padding_;
  QuickerPool graph_;
};

class GlobalAveragePoolKernel final : public Kernel {
 public:
  GlobalAveragePoolKernel(CudaContext& context, const GlobalAveragePool& op, const TensorDesc& in)
      : type_(element_of(in)), images_(images_of(in)) {
    graph_.prepare(context, pool_graph(op, in), [this](const GraphOperands& o, std::byte*, void* stream) {
      global_average({stream, name}, type_, images_, o[0], o[1]);
    });
  }
  Needs needs() const override { return graph_.needs(); }
  void forward(const OpArgs& a, Stream& stream) override {
    if (graph_.run(a, nullptr, stream)) return;
    global_average(at(stream, name), type_, images_, a.in[0].data, a.out[0].data);
  }
  void backward(const OpArgs&, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0])) global_average_gradient(at(stream, name), type_, images_, g.out[0].data, slot_of(g.in[0]));
  }

 private:
  static constexpr const char* name = "global_avgpool";
  Element type_;
  Images images_;
  QuickerPool graph_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext& context, const MaxPool& op, Inputs in, const OpUse& use) {
  return std::make_unique<MaxPoolKernel>(context, op, in[0], use);
}
std::unique_ptr<Kernel> make(CudaContext& context, const AveragePool& op, Inputs in, const OpUse&) {
  return std::make_unique<AveragePoolKernel>(context, op, in[0]);
}
std::unique_ptr<Kernel> make(CudaContext& context, const GlobalAveragePool& op, Inputs in, const OpUse&) {
  return std::make_unique<GlobalAveragePoolKernel>(context, op, in[0]);
}

}  // namespace dtrain::cuda
