// Softmax and cross-entropy by own kernels.
#include <memory>

#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/softmax_cross_entropy.hpp"

namespace dtrain::cuda {

namespace {

class SoftmaxCrossEntropyKernel final : public Kernel {
 public:
  SoftmaxCrossEntropyKernel(const SoftmaxCrossEntropy& op, Inputs in)
      : op_(op), type_(element_of(in[0])), shape_(matrix_of(in[0])), rows_each_(shape_.rows / in[2].elements()) {}
  Needs needs() const override { return {loss_bytes(shape_.rows), 0}; }
  void forward(const OpArgs& a, Stream& stream) override {
    cross_entropy(at(stream, name), type_, place(a), !a.pass.first, a.out[0].as<float>(), a.workspace.data);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0])) cross_entropy_gradient(at(stream, name), type_, place(a), &a.step, a.loss, slot_of(g.in[0]));
  }

 private:
  static constexpr const char* name = "softmax_cross_entropy";
  CrossEntropyPlace place(const OpArgs& a) const {
    return {shape_,
            op_.label_smoothing,
            op_.z_loss,
            a.in[0].data,
            {a.in[1].data, a.in[1].desc.dtype, op_.ignore.has_value(), op_.ignore.value_or(0)},
            {a.in[2].as<const float>(), rows_each_},
            a.saved.empty() ? nullptr : a.saved[0].as<SoftmaxRow>()};
  }
  SoftmaxCrossEntropy op_;
  Element type_;
  Matrix shape_;
  std::int64_t rows_each_;  // that share a weight
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const SoftmaxCrossEntropy& op, Inputs in, const OpUse&) {
  return std::make_unique<SoftmaxCrossEntropyKernel>(op, in);
}

}  // namespace dtrain::cuda
