// Another element type.
#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/cast.hpp"

namespace dtrain::cuda {

namespace {

class CastKernel final : public Kernel {
 public:
  CastKernel(const Cast& op, const TensorDesc& in) : from_(element_of(in)), to_(element_of(op.to)), n_(in.elements()) {}
  void forward(const OpArgs& a, Stream& stream) override {
    cast(at(stream, "cast"), from_, to_, a.in[0].data, {a.out[0].data, Put::overwrite}, n_);
  }
  void backward(const OpArgs&, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0])) cast(at(stream, "cast"), to_, from_, g.out[0].data, slot_of(g.in[0]), n_);
  }

 private:
  Element from_, to_;
  std::int64_t n_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const Cast& op, Inputs in, const OpUse&) {
  return std::make_unique<CastKernel>(op, in[0]);
}

}  // namespace dtrain::cuda
