// Loss ops: sums over the samples of a micro batch, added to those of the step's earlier micro batches.
#include "runtime/cuda/op_support.hpp"

namespace dtrain::cuda {

namespace {

class SoftmaxCrossEntropyKernel final : public Kernel {
 public:
  SoftmaxCrossEntropyKernel(const SoftmaxCrossEntropy& op, const Shape& logits)
      : samples_(logits[0]), classes_(logits[1]), smoothing_(op.label_smoothing) {}
  Needs needs() const override { return {loss_bytes(samples_), 0}; }
  void forward(const OpArgs& a, Stream& stream) override {
    cross_entropy(at(stream, "softmax_cross_entropy"), place(a), !a.pass.first, a.out[0].as<float>(), a.workspace.data);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0]))
      cross_entropy_gradient(at(stream, "softmax_cross_entropy"), place(a), &a.step, slot_of(g.in[0]));
  }

 private:
  CrossEntropyPlace place(const OpArgs& a) const {
    return {samples_,
            classes_,
            smoothing_,
            a.in[0].as<const float>(),
            a.in[1].as<const std::int32_t>(),
            a.in[2].as<const float>(),
            a.saved.empty() ? nullptr : a.saved[0].as<float>()};
  }
  std::int64_t samples_, classes_;
  double smoothing_;
};

class MeanSquaredErrorKernel final : public Kernel {
 public:
  explicit MeanSquaredErrorKernel(const Shape& prediction) : samples_(prediction[0]), values_(prediction[1]) {}
  Needs needs() const override { return {loss_bytes(samples_), 0}; }
  void forward(const OpArgs& a, Stream& stream) override {
    squared_error(at(stream, "mean_squared_error"), place(a), !a.pass.first, a.out[0].as<float>(), a.workspace.data);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0])) squared_error_gradient(at(stream, "mean_squared_error"), place(a), &a.step, slot_of(g.in[0]));
  }

 private:
  SquaredErrorPlace place(const OpArgs& a) const {
    return {samples_, values_, a.in[0].as<const float>(), a.in[1].as<const float>(), a.in[2].as<const float>()};
  }
  std::int64_t samples_, values_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const SoftmaxCrossEntropy& op, Inputs in, const OpUse&) {
  return std::make_unique<SoftmaxCrossEntropyKernel>(op, in[0].shape);
}
std::unique_ptr<Kernel> make(CudaContext&, const MeanSquaredError&, Inputs in, const OpUse&) {
  return std::make_unique<MeanSquaredErrorKernel>(in[0].shape);
}

}  // namespace dtrain::cuda
