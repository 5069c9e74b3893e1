// Products of two values, or of a value and one a channel.
#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/multiply.hpp"

namespace dtrain::cuda {

namespace {

class MultiplyKernel final : public Kernel {
 public:
  explicit MultiplyKernel(Inputs in) : type_(element_of(in[0])), a_channel_(in[0].shape != in[1].shape) {
    if (a_channel_) images_ = images_of(in[0]);
  }
  void forward(const OpArgs& a, Stream& stream) override {
    const Launch where = at(stream, "multiply");
    if (a_channel_) return scale_channels(where, type_, images_, a.in[0].data, a.in[1].data, a.out[0].data);
    multiply(where, type_, a.in[0].data, a.in[1].data, a.out[0].data, a.in[0].elements());
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (!wanted(g.in[0]) && !wanted(g.in[1])) return;
    const Launch where = at(stream, "multiply");
    const void *x = a.in[0].data, *y = a.in[1].data, *gradient = g.out[0].data;
    const Slot of_x = slot_of(g.in[0]), of_y = slot_of(g.in[1]);
    if (a_channel_) return scale_channels_gradient(where, type_, images_, x, y, gradient, of_x, of_y);
    multiply_gradient(where, type_, x, y, gradient, of_x, of_y, a.in[0].elements());
  }

 private:
  Element type_;
  bool a_channel_;  // squeeze and excitation: a[n, pixel, c] * b[n, c]
  Images images_{};
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const Multiply&, Inputs in, const OpUse&) {
  return std::make_unique<MultiplyKernel>(in);
}

}  // namespace dtrain::cuda
