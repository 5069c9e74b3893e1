#include "runtime/cpu/ops/in_float.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/weighted.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

namespace {

class InFloat final : public Kernel {
 public:
  /// `in`, `out`: in float32, as `kernel` has them.
  InFloat(std::unique_ptr<Kernel> kernel, const TensorDesc& in, const TensorDesc& out, const TensorDesc& weights,
          Activation activation, int threads)
      : kernel_(std::move(kernel)),
        in_(in),
        out_(out),
        weights_(weights),
        activation_(activation),
        threads_(threads),
        needs_(kernel_->needs()) {
    weights_at_ = aligned(needs_.packed);
    in_at_ = aligned(needs_.workspace);
    out_at_ = in_at_ + aligned(in_.bytes());
    needs_.packed = weights_at_ + aligned(weights_.bytes());
    needs_.workspace = out_at_ + aligned(out_.bytes());
  }

  Needs needs() const override { return needs_; }

  void pack(std::span<const Tensor> master, Tensor packed, Stream& stream) override {
    const float* const from = master[0].as<float>();
    convert(weights_.elements(), weights_in(packed), false,
            [=](std::int64_t i) { return to_float(from_float<Bf16>(from[i])); });
    const auto params = rounded(master, packed);
    kernel_->pack(std::span(params).first(master.size()), packed, stream);
  }

  void forward(const OpArgs& a, Stream& stream) override {
    const Tensor x = widened(a.in[0], in_, a, in_at_);
    const Tensor y{out_, a.workspace.as<std::byte>() + out_at_};
    const auto params = rounded(a.params, a.packed);
    kernel_->forward(inside(a, x, y, params), stream);
    narrow(y, {a.out[0], Write::overwrite});
  }

  void backward_activation(const OpArgs& a, Tensor grad_out, Stream&) override {
    epilogue_gradient(activation_, a.out[0], grad_out, threads_);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const Tensor gy = widened(g.out[0], out_, a, out_at_);
    const auto params = rounded(a.params, a.packed);
    if (wanted(g.params, 0) || wanted(g.params, 1)) {
      const Tensor x = widened(a.in[0], in_, a, in_at_);
      kernel_->backward(inside(a, x, gy, params), {{&gy, 1}, {}, g.params}, stream);
    }
    if (!wanted(g.in, 0)) return;
    const Tensor gx{in_, a.workspace.as<std::byte>() + in_at_};
    const GradSlot to{gx, Write::overwrite};
    kernel_->backward(inside(a, gx, gy, params), {{&gy, 1}, {&to, 1}, {}}, stream);
    narrow(gx, g.in[0]);
  }

 private:
  float* weights_in(const Tensor& packed) const {
    return reinterpret_cast<float*>(packed.as<std::byte>() + weights_at_);
  }
  /// The parameters with the weights as bfloat16 has them.
  std::array<Tensor, 2> rounded(std::span<const Tensor> params, const Tensor& packed) const {
    return {Tensor{weights_, weights_in(packed)}, params.size() > 1 ? params[1] : Tensor{}};
  }
  OpArgs inside(const OpArgs& a, const Tensor& x, const Tensor& y, const std::array<Tensor, 2>& params) const {
    OpArgs args = a;
    args.in = {&x, 1};
    args.out = {&y, 1};
    args.params = std::span(params).first(a.params.size());
    return args;
  }

  template <class T, class Value>
  void convert(std::int64_t elements, T* to, bool add, Value value) const {
    parallel_chunks(elements, task_elements, threads_,
                    [=](std::int64_t begin, std::int64_t end) { write_elements(to, begin, end, add, value); });
  }
  Tensor widened(const Tensor& from, const TensorDesc& desc, const OpArgs& a, std::size_t at) const {
    const Tensor to{desc, a.workspace.as<std::byte>() + at};
    const Bf16* const values = from.as<Bf16>();
    convert(desc.elements(), to.as<float>(), false, [=](std::int64_t i) { return to_float(values[i]); });
    return to;
  }
  void narrow(const Tensor& from, const GradSlot& to) const {
    const float* const values = from.as<float>();
    convert(from.desc.elements(), to.grad.as<Bf16>(), to.write == Write::accumulate,
            [=](std::int64_t i) { return values[i]; });
  }

  std::unique_ptr<Kernel> kernel_;
  TensorDesc in_, out_, weights_;
  Activation activation_;
  int threads_;
  Needs needs_;
  // Packed: what the kernel packs, then the rounded weights. Workspace: the kernel's, then the input (or its gradient)
  // and the output (or its gradient).
  std::size_t weights_at_ = 0, in_at_ = 0, out_at_ = 0;
};

template <class Op>
std::unique_ptr<Kernel> in_float(const Op& op, TensorDesc in, int threads) {
  in.dtype = DType::f32;
  const OpShape shape = infer(op, {&in, 1});
  return std::make_unique<InFloat>(make(op, {&in, 1}, threads), in, shape.out[0], shape.params[0].desc, op.activation,
                                   threads);
}

}  // namespace

std::unique_ptr<Kernel> make_in_float(const Conv& op, const TensorDesc& in, int threads) {
  return in_float(op, in, threads);
}
std::unique_ptr<Kernel> make_in_float(const ConvTranspose& op, const TensorDesc& in, int threads) {
  return in_float(op, in, threads);
}
std::unique_ptr<Kernel> make_in_float(const Dense& op, const TensorDesc& in, int threads) {
  return in_float(op, in, threads);
}

}  // namespace dtrain::cpu
