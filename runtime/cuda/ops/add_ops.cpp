// Sums of two values, with an activation inside.
#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/add.hpp"

namespace dtrain::cuda {

namespace {

class AddKernel final : public Kernel {
 public:
  AddKernel(const Add& op, const TensorDesc& in) : kind_(op.activation), type_(element_of(in)), n_(in.elements()) {}
  void forward(const OpArgs& a, Stream& stream) override {
    add(at(stream, "add"), type_, kind_, a.in[0].data, a.in[1].data, a.out[0].data, n_);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const void* gy = g.out[0].data;
    Slot slots[2] = {slot_of(g.in[0]), slot_of(g.in[1])};
    for (Slot& slot : slots)  // already there
      if (kind_ == Activation::none && slot.put == Put::overwrite && slot.to == gy) slot.put = Put::none;
    if (slots[0].put == Put::none && slots[1].put == Put::none) return;
    add_gradient(at(stream, "add"), type_, kind_, a.out[0].data, gy, slots[0], slots[1], n_);
  }

 private:
  Activation kind_;
  Element type_;
  std::int64_t n_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const Add& op, Inputs in, const OpUse&) {
  return std::make_unique<AddKernel>(op, in[0]);
}

}  // namespace dtrain::cuda
