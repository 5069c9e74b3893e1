// Batch normalization with moments of all ranks, by own kernels: no graph is given moments.
#include "runtime/cuda/ops/batch_normalize.hpp"
#include "runtime/cuda/ops/normalization_kernel.hpp"

namespace dtrain::cuda {

namespace {

class BatchNormalizeKernel final : public NormalizationKernel {
 public:
  BatchNormalizeKernel(const BatchNormalize& op, const TensorDesc& in)
      : NormalizationKernel("batch_normalize", op.settings(), in) {}

  Needs needs() const override { return {own_workspace(), 0}; }

  void forward(const OpArgs& a, Stream& stream) override {
    const Launch where = at(stream, name_);
    if (keeps(a)) statistics_of_moments(where, place_, a.in[1].as<const double>(), statistics_of(a));
    normalize_output(where, a);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const Launch where = at(stream, name_);
    const NormalizeBackward b = backward_of(a, g);
    normalize_params_gradient(where, type_, place_, b, slot_of(g.params[0]), slot_of(g.params[1]), a.workspace.data);
    if (wanted(g.in, 1)) moments_gradient(where, place_.shape, b, a.in[1].as<const double>(), slot_of(g.in[1]));
    if (wanted(g.in, 0)) normalize_gradient(where, type_, place_, b, true, slot_of(g.in[0]));
  }
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const BatchNormalize& op, Inputs in, const OpUse&) {
  return std::make_unique<BatchNormalizeKernel>(op, in[0]);
}

}  // namespace dtrain::cuda
