// Convolutions through oneDNN: NHWC activations, weights in the library's blocked formats (repacked once an update),
// gradients of weights brought back into canonical order.
#include <fmt/format.h>

#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/weighted.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::cpu {

namespace {

class Conv2dKernel final : public Kernel {
 public:
  Conv2dKernel(const Conv2d& op, const TensorDesc& in, int threads) : op_(op), threads_(threads) {
    const OmpThreads scope(threads_);
    const OpShape shape = infer(op, {&in, 1});
    const auto dims = [](const Shape& s) {
      const auto extents = s.extents();
      return dnnl::memory::dims(extents.begin(), extents.end());
    };
    const Shape& out = shape.out[0].shape;
    ConvolutionShape c{dims(in.shape),
                       dims(shape.params[0].desc.shape),
                       dims(out),
                       {op.stride[0], op.stride[1]},
                       {op.padding[0], op.padding[1]},
                       {},
                       {op.dilation[0] - 1, op.dilation[1] - 1},
                       op.bias,
                       op.activation,
                       in.dtype};
    auto canonical_format = dnnl::memory::format_tag::oihw;
    if (op.groups > 1) {  // [groups, filters / groups, channels / groups, h, w]: the same bytes
      c.weights[0] /= op.groups;
      c.weights.insert(c.weights.begin(), op.groups);
      canonical_format = dnnl::memory::format_tag::goihw;
    }
    for (int d = 0; d < 2; ++d) {  // what of the padding the last window reaches
      const auto i = static_cast<std::size_t>(d);
      c.padding_end.push_back((out[2 + d] - 1) * op.stride[i] + (op.kernel[i] - 1) * op.dilation[i] + 1 -
                              in.shape[2 + d] - op.padding[i]);
    }
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    const dnnl::memory::desc canonical = plain_desc(c.weights, canonical_format);
    run_ = WeightedOp(engine, plan_convolution(engine, c), canonical, canonical, op.bias, in.dtype, threads);
  }

  Needs needs() const override { return run_.needs(); }

  void pack(std::span<const Tensor> master, Tensor packed, Stream&) override {
    const OmpThreads scope(threads_);
    run_.pack(master[0].data, packed.as<std::byte>());
  }

  void forward(const OpArgs& a, Stream&) override {
    const OmpThreads scope(threads_);
    run_.forward(a);
  }

  void backward_activation(const OpArgs& a, Tensor grad_out, Stream&) override {
    epilogue_gradient(op_.activation, a.out[0], grad_out, threads_);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    const OmpThreads scope(threads_);
    if (!g.in.empty() && g.in[0].write != Write::none) run_.data_gradient(a, g);
    const Write weights = g.params.empty() ? Write::none : g.params[0].write;
    const Write bias = g.params.size() < 2 ? Write::none : g.params[1].write;
    if (weights == Write::none && bias == Write::none) return;
    run_.parameter_gradients(a, g);
    if (weights != Write::none)
      run_.take_weight_gradient(a, g.params[0].grad.as<float>(), weights == Write::accumulate);
  }

 private:
  Conv2d op_;
  int threads_;
  WeightedOp run_;
};

}  // namespace

std::unique_ptr<Kernel> make_conv2d(const Conv2d& op, std::span<const TensorDesc> in, int threads) {
  try {
    return std::make_unique<Conv2dKernel>(op, in[0], threads);
  } catch (const dnnl::error& e) {
    throw DeviceError(fmt::format("oneDNN cannot run a convolution of {} filters {} x {} on {}: {}", op.filters,
                                  op.kernel[0], op.kernel[1], in[0].shape.str(), e.what()));
  }
}

}  // namespace dtrain::cpu
