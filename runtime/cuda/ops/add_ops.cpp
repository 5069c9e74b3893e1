// Sums of two values, with an activation inside.
#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/add.hpp"

namespace dtrain::cuda {

namespace {

class AddKernel final : public Kernel {
 public:
  AddKernel(const Add& op, const TensorDesc& in)
      : kind_(op.activation), factor_(static_cast<float>(op.factor)), type_(element_of(in)), n_(in.elements()) {}
  void forward(const OpArgs& a, Stream& stream) override {
    add(at(stream, "add"), type_, kind_, factor_, a.in[0].data, a.in[1].data, a.out[0].data, n_);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const void* gy = g.out[0].data;
    Slot slots[2] = {slot_of(g.in[0]), slot_of(g.in[1])};
    const auto already_there = [&](Slot& slot) {
      if (kind_ == Activation::none && slot.put == Put::overwrite && slot.to == gy) slot.put = Put::none;
    };
    already_there(slots[0]);
    if (factor_ == 1) already_there(slots[1]);
    if (slots[0].put == Put::none && slots[1].put == Put::none) return;
    add_gradient(at(stream, "add"), type_, kind_, factor_, a.out[0].data, gy, slots[0], slots[1], n_);
  }

 private:
  Activation kind_;
  float factor_;  // of the second
  Element type_;
  std::int64_t n_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const Add& op, Inputs in, const OpUse&) {
  return std::make_unique<AddKernel>(op, in[0]);
}

}  // namespace dtrain::cuda
