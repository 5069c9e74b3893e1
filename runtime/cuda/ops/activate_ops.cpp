// An activation as an op of its own.
#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/activate.hpp"

namespace dtrain::cuda {

namespace {

class ActivateKernel final : public Kernel {
 public:
  ActivateKernel(const Activate& op, const TensorDesc& in) : kind_(op.kind), type_(element_of(in)), n_(in.elements()) {}
  void forward(const OpArgs& a, Stream& stream) override {
    activate(at(stream, name_of(kind_)), type_, kind_, a.in[0].data, a.out[0].data, n_);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (!wanted(g.in[0])) return;
    const void* seen = derivative_of_output(kind_) ? a.out[0].data : a.in[0].data;
    activation_gradient(at(stream, name_of(kind_)), type_, kind_, seen, g.out[0].data, slot_of(g.in[0]), n_);
  }

 private:
  Activation kind_;
  Element type_;
  std::int64_t n_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const Activate& op, Inputs in, const OpUse&) {
  return std::make_unique<ActivateKernel>(op, in[0]);
}

}  // namespace dtrain::cuda
