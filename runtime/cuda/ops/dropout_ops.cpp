// Dropout of elements or of whole samples.
#include <cmath>

#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/cast.hpp"
#include "runtime/cuda/ops/dropout.hpp"

namespace dtrain::cuda {

namespace {

class DropoutKernel final : public Kernel {
 public:
  DropoutKernel(const Dropout& op, const TensorDesc& in)
      : type_(element_of(in)),
        shape_{in.shape[0],
               in.elements() / in.shape[0],
               op.id,
               static_cast<std::uint32_t>(std::ceil(op.rate * 0x1p24)),
               static_cast<float>(1.0 / (1.0 - op.rate)),
               op.whole_sample} {}
  void forward(const OpArgs& a, Stream& stream) override {
    const Launch where = at(stream, "dropout");
    if (a.pass.mode == Mode::evaluate) {
      if (a.in[0].data != a.out[0].data)
        cast(where, type_, type_, a.in[0].data, {a.out[0].data, Put::overwrite}, shape_.samples * shape_.features);
      return;
    }
    dropout(where, type_, shape_, &a.step, a.positions[0].as<const std::uint64_t>(), a.in[0].data, a.out[0].data,
            a.saved[0].as<std::uint8_t>());
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0]))
      dropout_gradient(at(stream, "dropout"), type_, shape_, a.saved[0].as<const std::uint8_t>(), g.out[0].data,
                       slot_of(g.in[0]));
  }

 private:
  Element type_;
  DropoutShape shape_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const Dropout& op, Inputs in, const OpUse&) {
  return std::make_unique<DropoutKernel>(op, in[0]);
}

}  // namespace dtrain::cuda
