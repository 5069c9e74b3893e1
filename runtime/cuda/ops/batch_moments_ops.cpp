// Sums of a micro batch for batch normalization over ranks, by own kernels.
#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/batch_moments.hpp"

namespace dtrain::cuda {

namespace {

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

std::unique_ptr<Kernel> make(CudaContext&, const BatchMoments&, Inputs in, const OpUse&) {
  return std::make_unique<BatchMomentsKernel>(in[0]);
}

}  // namespace dtrain::cuda
