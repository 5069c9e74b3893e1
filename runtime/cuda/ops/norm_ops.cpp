// Layer normalization, and batch normalization of a micro batch or with moments that were summed over ranks: by own
// kernels, or as cuDNN graphs where those measure quicker.
#include <algorithm>
#include <array>
#include <memory>

#include "runtime/cuda/library/tuner.hpp"
#include "runtime/cuda/ops/graph_ops.hpp"
#include "runtime/cuda/ops/layer_support.hpp"

namespace dtrain::cuda {

namespace {

float* floats(void* p) {
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

class LayerNormKernel final : public Kernel {
 public:
  LayerNormKernel(CudaContext& context, const LayerNorm& op, const TensorDesc& in, const OpUse& use)
      : type_(element_of(in)), shape_(matrix_of(in)), epsilon_(static_cast<float>(op.epsilon)) {
    const auto forward = [this](const GraphOperands& o, std::byte*, void* stream) {
      layer_norm({stream, name}, type_, shape_, epsilon_, o[0], floats(o[1]), floats(o[2]), o[3], floats(o[4]),
                 floats(o[5]));
    };
    const auto backward = [this](const GraphOperands& o, std::byte* workspace, void* stream) {
      own_backward({stream, name}, o, {o[5], Put::overwrite}, {o[6], Put::overwrite}, {o[7], Put::overwrite},
                   workspace);
    };
    graphs_.prepare_forward(context, norm_graph(op, in, false), in, shape_.rows, use, {0, forward, {}, true});
    graphs_.prepare_backward(context, norm_graph(op, in, true), in, shape_.rows, use, {sums_bytes(shape_), backward});
  }

  Needs needs() const override { return graphs_.needs(sums_bytes(shape_)); }

  void forward(const OpArgs& a, Stream& stream) override {
    const bool train = a.pass.mode == Mode::train, keep = train && !a.pass.recompute;
    void *mean = train ? a.saved[0].data : nullptr, *inverse = train ? a.saved[1].data : nullptr;
    if (graphs_.forward({a.in[0].data, a.params[0].data, a.params[1].data, a.out[0].data, mean, inverse}, a, stream))
      return;
    layer_norm(at(stream, name), type_, shape_, epsilon_, a.in[0].data, a.params[0].as<const float>(),
               a.params[1].as<const float>(), a.out[0].data, keep ? floats(mean) : nullptr,
               keep ? floats(inverse) : nullptr);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const Launch where = at(stream, name);
    const GraphOperands operands{g.out[0].data, a.in[0].data, a.params[0].data, a.saved[0].data, a.saved[1].data};
    if (graphs_.backward(operands, a, g, where, type_)) return;
    own_backward(where, operands, g.in.empty() ? Slot{} : slot_of(g.in[0]), slot_of(g.params[0]), slot_of(g.params[1]),
                 a.workspace.data);
  }

 private:
  static constexpr const char* name = "layer_norm";

  void own_backward(const Launch& where, const GraphOperands& o, Slot input, Slot weight, Slot bias,
                    void* workspace) const {
    if (weight.put != Put::none || bias.put != Put::none)
      layer_norm_params_gradient(where, type_, shape_, o[1], o[0], floats(o[3]), floats(o[4]), weight, bias, workspace);
    if (input.put != Put::none)
      layer_norm_gradient(where, type_, shape_, o[1], o[0], floats(o[2]), floats(o[3]), floats(o[4]), input);
  }

  Element type_;
  Matrix shape_;
  float epsilon_;
  NormGraphs graphs_;
};

class BatchNormKernel final : public Kernel {
 public:
  /// Over ranks there are no graphs: moments are summed between them.
  BatchNormKernel(const BatchNormalize& op, const TensorDesc& in)
      : type_(element_of(in)), place_{matrix_of(in), op.activation, op.epsilon}, over_ranks_(true) {}
  BatchNormKernel(CudaContext& context, const BatchNorm& op, const TensorDesc& in, const OpUse& use)
      : type_(element_of(in)), place_{matrix_of(in), op.activation, op.epsilon} {
    const std::int64_t channels = place_.shape.channels;
    if (const auto graph = norm_graph(op, in, false)) {
      const auto statistics = [](const GraphOperands& o) {
        return Statistics{floats(o[4]), floats(o[5]), floats(o[6]), floats(o[7]), true};
      };
      const auto instead = [=, this](const GraphOperands& o, std::byte* workspace, void* stream) {
        const Launch where{stream, name()};
        batch_statistics(where, type_, place_, o[0], statistics(o), workspace);
        normalize(where, type_, place_, o[0], floats(o[4]), floats(o[5]), false, floats(o[1]), floats(o[2]), o[3]);
      };
      const auto behind = [=, this](const GraphOperands& o, std::byte*, void* stream) {
        add_statistics({stream, name()}, place_, statistics(o));
      };
      graphs_.prepare_forward(context, *graph, in, channels, use, {own_workspace(), instead, behind, true});
    }
    if (const auto graph = norm_graph(op, in, true)) {
      const auto instead = [this](const GraphOperands& o, std::byte* workspace, void* stream) {
        const Launch where{stream, name()};
        const NormalizeBackward b = backward_of(o, nullptr, workspace);
        normalize_params_gradient(where, type_, place_, b, {o[6], Put::overwrite}, {o[7], Put::overwrite}, workspace);
        normalize_gradient(where, type_, place_, b, false, {o[5], Put::overwrite});
      };
      graphs_.prepare_backward(context, *graph, in, channels, use, {own_workspace(), instead});
    }
  }

  Needs needs() const override { return graphs_.needs(own_workspace()); }

  void forward(const OpArgs& a, Stream& stream) override {
    const Launch where = at(stream, name());
    const bool train = a.pass.mode == Mode::train, keep = train && !a.pass.recompute;
    Statistics statistics{};
    if (train) statistics = {a.saved[0].as<float>(), a.saved[1].as<float>(), nullptr, nullptr, a.pass.first};
    if (keep) statistics.mean_sum = a.state_sums[0].as<float>(), statistics.variance_sum = a.state_sums[1].as<float>();
    // Computed again, a graph gives the same bits, and the statistics with them.
    if (graphs_.forward(
            {a.in[0].data, a.params[0].data, a.params[1].data, a.out[0].data, statistics.mean, statistics.inverse}, a,
            stream)) {
      if (keep) add_statistics(where, place_, statistics);
      return;
    }
    if (keep && over_ranks_) {
      statistics_of_moments(where, place_, a.in[1].as<const double>(), statistics);
    } else if (keep) {
      batch_statistics(where, type_, place_, a.in[0].data, statistics, a.workspace.data);
    }
    const std::span<const Tensor> from = train ? a.saved : a.state;
    normalize(where, type_, place_, a.in[0].data, from[0].as<const float>(), from[1].as<const float>(), !train,
              a.params[0].as<const float>(), a.params[1].as<const float>(), a.out[0].data);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const Launch where = at(stream, name());
    const GraphOperands operands{g.out[0].data, a.in[0].data, a.params[0].data, a.saved[0].data, a.saved[1].data,
                                 nullptr,       nullptr,      nullptr,          a.params[1].data};
    if (graphs_.backward(operands, a, g, where, type_)) return;
    const NormalizeBackward b = backward_of(operands, a.out[0].data, a.workspace.as<std::byte>());
    normalize_params_gradient(where, type_, place_, b, slot_of(g.params[0]), slot_of(g.params[1]), a.workspace.data);
    if (g.in.size() > 1 && wanted(g.in[1]))
      moments_gradient(where, place_.shape, b, a.in[1].as<const double>(), slot_of(g.in[1]));
    if (!g.in.empty() && wanted(g.in[0])) normalize_gradient(where, type_, place_, b, over_ranks_, slot_of(g.in[0]));
  }

 private:
  /// Partial sums, then both sums of each channel.
  std::size_t sums_at() const { return (sums_bytes(place_.shape) + 15) / 16 * 16; }
  std::size_t own_workspace() const { return sums_at() + bytes_of(2 * place_.shape.channels, DType::f32); }
  NormalizeBackward backward_of(const GraphOperands& o, const void* y, std::byte* workspace) const {
    return {o[1],         y,
            o[0],         floats(o[3]),
            floats(o[4]), floats(o[2]),
            floats(o[8]), reinterpret_cast<float*>(workspace + sums_at())};
  }
  const char* name() const { return over_ranks_ ? "batch_normalize" : "batch_norm"; }

  Element type_;
  BatchNormPlace place_;
  bool over_ranks_ = false;
  NormGraphs graphs_;
};

class BatchMomentsKernel final : public Kernel {
 public:
  explicit BatchMomentsKernel(const TensorDesc& in) : type_(element_of(in)), shape_(matrix_of(in)) {}
  Needs needs() const override { return {sums_bytes(shape_), 0}; }
  void forward(const OpArgs& a, Stream& stream) override {
    batch_moments(at(stream, "batch_moments"), type_, shape_, a.in[0].data, a.out[0].as<double>(), a.workspace.data);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0]))
      batch_moments_gradient(at(stream, "batch_moments"), type_, shape_, a.in[0].data, g.out[0].as<const double>(),
                             slot_of(g.in[0]));
  }

 private:
  Element type_;
  Matrix shape_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext& context, const BatchNorm& op, Inputs in, const OpUse& use) {
  return std::make_unique<BatchNormKernel>(context, op, in[0], use);
}
std::unique_ptr<Kernel> make(CudaContext&, const BatchNormalize& op, Inputs in, const OpUse&) {
  return std::make_unique<BatchNormKernel>(op, in[0]);
}
std::unique_ptr<Kernel> make(CudaContext&, const BatchMoments&, Inputs in, const OpUse&) {
  return std::make_unique<BatchMomentsKernel>(in[0]);
}
std::unique_ptr<Kernel> make(CudaContext& context, const LayerNorm& op, Inputs in, const OpUse& use) {
  return std::make_unique<LayerNormKernel>(context, op, in[0], use);
}

}  // namespace dtrain::cuda
