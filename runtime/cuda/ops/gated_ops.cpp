// Gated channels by own kernels.
#include <memory>

#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/gated.hpp"

namespace dtrain::cuda {

namespace {

class GatedKernel final : public Kernel {
 public:
  GatedKernel(const Gated& op, const TensorDesc& in)
      : type_(element_of(in)), shape_{in.rows(), in.channels() / 2}, gate_(op.gate) {}

  void forward(const OpArgs& a, Stream& stream) override {
    gated(at(stream, name), type_, shape_, gate_, a.in[0].data, a.out[0].data);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in, 0))
      gated_gradient(at(stream, name), type_, shape_, gate_, a.in[0].data, g.out[0].data, slot_of(g.in[0]));
  }

 private:
  static constexpr const char* name = "gated";
  Element type_;
  Matrix shape_;
  Activation gate_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const Gated& op, Inputs in, const OpUse&) {
  return std::make_unique<GatedKernel>(op, in[0]);
}

}  // namespace dtrain::cuda
