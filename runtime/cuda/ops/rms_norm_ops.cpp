// RMS normalization by own kernels.
#include <memory>

#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/rms_norm.hpp"

namespace dtrain::cuda {

namespace {

class RmsNormKernel final : public Kernel {
 public:
  RmsNormKernel(const RmsNorm& op, const TensorDesc& in)
      : type_(element_of(in)), shape_(matrix_of(in)), epsilon_(static_cast<float>(op.epsilon)) {}

  Needs needs() const override { return {sums_bytes(shape_), 0}; }

  void forward(const OpArgs& a, Stream& stream) override {
    const bool keep = a.pass.mode == Mode::train && !a.pass.recompute;
    rms_norm(at(stream, name), type_, place(a), epsilon_, a.out[0].data, keep ? a.saved[0].as<float>() : nullptr);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const auto* inverse = a.saved[0].as<const float>();
    if (!g.params.empty() && wanted(g.params[0]))
      rms_norm_weight_gradient(at(stream, name), type_, place(a), g.out[0].data, inverse, slot_of(g.params[0]),
                               a.workspace.data);
    if (!g.in.empty() && wanted(g.in[0]))
      rms_norm_gradient(at(stream, name), type_, place(a), g.out[0].data, inverse, slot_of(g.in[0]));
  }

 private:
  static constexpr const char* name = "rms_norm";
  RmsNormPlace place(const OpArgs& a) const { return {shape_, a.in[0].data, a.params[0].as<const float>()}; }

  Element type_;
  Matrix shape_;
  float epsilon_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const RmsNorm& op, Inputs in, const OpUse&) {
  return std::make_unique<RmsNormKernel>(op, in[0]);
}

}  // namespace dtrain::cuda
