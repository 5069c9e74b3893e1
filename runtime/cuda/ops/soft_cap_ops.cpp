// Values kept between -cap and cap, by own kernels.
#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/soft_cap.hpp"

namespace dtrain::cuda {

namespace {

class SoftCapKernel final : public Kernel {
 public:
  SoftCapKernel(const SoftCap& op, const TensorDesc& in) : math_(op), type_(element_of(in)), n_(in.elements()) {}
  void forward(const OpArgs& a, Stream& stream) override {
    soft_cap(at(stream, name), type_, math_, a.in[0].data, a.out[0].data, n_);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0]))
      soft_cap_gradient(at(stream, name), type_, math_, a.out[0].data, g.out[0].data, slot_of(g.in[0]), n_);
  }

 private:
  static constexpr const char* name = "soft_cap";
  SoftCapMath math_;
  Element type_;
  std::int64_t n_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const SoftCap& op, Inputs in, const OpUse&) {
  return std::make_unique<SoftCapKernel>(op, in[0]);
}

}  // namespace dtrain::cuda
