// Batch normalization of a micro batch by own kernels, or as cuDNN graphs.
#include "runtime/cuda/ops/batch_norm.hpp"
#include "runtime/cuda/ops/norm_graphs.hpp"
#include "runtime/cuda/ops/normalization_kernel.hpp"

namespace dtrain::cuda {

namespace {

class BatchNormKernel final : public NormalizationKernel {
 public:
  BatchNormKernel(CudaContext& context, const BatchNorm& op, const TensorDesc& in, const OpUse& use)
      : NormalizationKernel("batch_norm", op, in), frozen_(op.frozen_statistics) {
    const std::int64_t channels = place_.shape.channels;
    if (const auto graph = norm_graph(op, in, false)) {
      const auto statistics = [](const GraphOperands& o) {
        return Statistics{floats(o[4]), floats(o[5]), floats(o[6]), floats(o[7]), true};
      };
      const auto instead = [=, this](const GraphOperands& o, std::byte* workspace, void* stream) {
        const Launch where{stream, name_};
        batch_statistics(where, type_, place_, o[0], statistics(o), workspace);
        normalize(where, type_, place_, o[0], floats(o[4]), floats(o[5]), false, floats(o[1]), floats(o[2]), o[3]);
      };
      const auto behind = [=, this](const GraphOperands& o, std::byte*, void* stream) {
        add_statistics({stream, name_}, place_, statistics(o));
      };
      graphs_.prepare_forward(context, *graph, in, channels, use, {own_workspace(), instead, behind, true});
    }
    if (const auto graph = norm_graph(op, in, true)) {
      const auto instead = [this](const GraphOperands& o, std::byte* workspace, void* stream) {
        const NormalizeBackward b{o[1],         nullptr,      o[0],         floats(o[3]),
                                  floats(o[4]), floats(o[2]), floats(o[8]), sums(workspace)};
        own_backward({stream, name_}, b, {o[5], Put::overwrite}, {o[6], Put::overwrite}, {o[7], Put::overwrite},
                     workspace);
      };
      graphs_.prepare_backward(context, *graph, in, channels, use, {own_workspace(), instead});
    }
  }

  Needs needs() const override { return graphs_.needs(own_workspace()); }

  void forward(const OpArgs& a, Stream& stream) override {
    const Launch where = at(stream, name_);
    const bool train = a.pass.mode == Mode::train;
    // Computed again, a graph gives the same bits, and the statistics with them.
    if (graphs_.forward({a.in[0].data, a.params[0].data, a.params[1].data, a.out[0].data,
                         train ? a.saved[0].data : nullptr, train ? a.saved[1].data : nullptr},
                        a, stream)) {
      if (keeps(a)) add_statistics(where, place_, statistics_of(a));
      return;
    }
    if (keeps(a) && frozen_)
      hold_statistics(where, place_, a.state[0].as<const float>(), a.state[1].as<const float>(), statistics_of(a));
    else if (keeps(a))
      batch_statistics(where, type_, place_, a.in[0].data, statistics_of(a), a.workspace.data);
    normalize_output(where, a);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const Launch where = at(stream, name_);
    const GraphOperands operands{g.out[0].data, a.in[0].data, a.params[0].data, a.saved[0].data, a.saved[1].data,
                                 nullptr,       nullptr,      nullptr,          a.params[1].data};
    if (graphs_.backward(operands, a, g, where, type_)) return;
    own_backward(where, backward_of(a, g), g.in.empty() ? Slot{} : slot_of(g.in[0]), slot_of(g.params[0]),
                 slot_of(g.params[1]), a.workspace.data);
  }

 private:
  void own_backward(const Launch& where, const NormalizeBackward& b, Slot input, Slot weight, Slot bias,
                    void* workspace) const {
    normalize_params_gradient(where, type_, place_, b, weight, bias, workspace);
    if (input.put != Put::none) normalize_gradient(where, type_, place_, b, frozen_, input);
  }

  bool frozen_;  // the statistics
  NormGraphs graphs_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext& context, const BatchNorm& op, Inputs in, const OpUse& use) {
  return std::make_unique<BatchNormKernel>(context, op, in[0], use);
}

}  // namespace dtrain::cuda
