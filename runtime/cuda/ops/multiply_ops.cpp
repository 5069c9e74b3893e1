// Products of two values, or of a value and one a channel.
#include "runtime/cuda/op_support.hpp"

namespace dtrain::cuda {

namespace {

class MultiplyKernel final : public Kernel {
 public:
  explicit MultiplyKernel(const TensorDesc& in) : type_(element_of(in)), n_(in.elements()) {}
  void forward(const OpArgs& a, Stream& stream) override {
    multiply(at(stream, "multiply"), type_, a.in[0].data, a.in[1].data, a.out[0].data, n_);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (!wanted(g.in[0]) && !wanted(g.in[1])) return;
    multiply_gradient(at(stream, "multiply"), type_, a.in[0].data, a.in[1].data, g.out[0].data, slot_of(g.in[0]),
                      slot_of(g.in[1]), n_);
  }

 private:
  Element type_;
  std::int64_t n_;
};

/// Squeeze and excitation: a[n, pixel, c] * b[n, c].
class ScaleChannelsKernel final : public Kernel {
 public:
  explicit ScaleChannelsKernel(const TensorDesc& in) : type_(element_of(in)), images_(images_of(in)) {}
  void forward(const OpArgs& a, Stream& stream) override {
    scale_channels(at(stream, "multiply"), type_, images_, a.in[0].data, a.in[1].data, a.out[0].data);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (!wanted(g.in[0]) && !wanted(g.in[1])) return;
    scale_channels_gradient(at(stream, "multiply"), type_, images_, a.in[0].data, a.in[1].data, g.out[0].data,
                            slot_of(g.in[0]), slot_of(g.in[1]));
  }

 private:
  Element type_;
  Images images_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const Multiply&, Inputs in, const OpUse&) {
  if (in[0].shape == in[1].shape) return std::make_unique<MultiplyKernel>(in[0]);
  return std::make_unique<ScaleChannelsKernel>(in[0]);
}

}  // namespace dtrain::cuda
