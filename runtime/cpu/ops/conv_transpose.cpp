// Transposed convolutions through oneDNN, as passes of the mirrored convolution: its data gradient is forward, its
// forward the data gradient. That is what the library's own deconvolution does, and it spares its descriptions.
#include <algorithm>

#include <fmt/format.h>

#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/channel_sums.hpp"
#include "runtime/cpu/ops/in_float.hpp"
#include "runtime/cpu/ops/weighted.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class ConvTransposeKernel final : public Kernel {
 public:
  ConvTransposeKernel(const ConvTranspose& op, const TensorDesc& in, int threads)
      : op_(op),
        elements_in_(in.elements()),
        out_(infer(op, {&in, 1}).out[0]),
        lines_(out_),
        threads_(threads),
        run_(weighted_convolution(op.mirrored(in), out_, threads)),
        needs_(run_.needs()) {
    grad_in_at_ = aligned(needs_.workspace);
    needs_.workspace = std::max(grad_in_at_ + in.bytes(), lines_.sums_bytes());
  }

  Needs needs() const override { return needs_; }

  void pack(std::span<const Tensor> master, Tensor packed, Stream&) override {
    const OmpThreads scope(threads_);
    run_.pack(master[0].data, packed.as<std::byte>());
  }

  void forward(const OpArgs& a, Stream&) override {
    const OmpThreads scope(threads_);
    const GradSlot to[] = {{a.out[0], Write::overwrite}};
    run_.data_gradient(a, {a.in, to, {}});
    bias_activate(op_.activation, a.out[0], op_.bias ? a.params[1].as<float>() : nullptr, threads_);
  }

  void backward_activation(const OpArgs& a, Tensor grad_out, Stream&) override {
    epilogue_gradient(op_.activation, a.out[0], grad_out, threads_);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    const OmpThreads scope(threads_);
    OpArgs mirrored = a;
    mirrored.in = g.out;
    if (wanted(g.in, 0)) {
      const bool add = g.in[0].write == Write::accumulate;
      const Tensor to{g.in[0].grad.desc, add ? a.workspace.as<std::byte>() + grad_in_at_ : g.in[0].grad.data};
      mirrored.out = {&to, 1};
      run_.forward(mirrored);
      if (add) add_into(to.desc.dtype, g.in[0].grad.data, to.data, elements_in_, threads_);
    }
    if (wanted(g.params, 0)) {
      run_.parameter_gradients(mirrored, {a.in, {}, {}});
      run_.take_weight_gradient(a, g.params[0]);
    }
    if (wanted(g.params, 1)) bias_gradient(a, g.out[0].as<T>(), g.params[1]);
  }

 private:
  void bias_gradient(const OpArgs& a, const T* gy, const GradSlot& slot) const {
    const double* sums = sum_channels(lines_, threads_, a.workspace.data,
                                      [&](std::int64_t begin, std::int64_t end, double* sum, double*) {
                                        for (std::int64_t at = begin; at < end; at += lines_.width) {
                                          const std::int64_t n = std::min(lines_.width, end - at);
#pragma omp simd
                                          for (std::int64_t i = 0; i < n; ++i)
                                            sum[i] += static_cast<double>(to_float(gy[at + i]));
                                        }
                                      });
    write_sums(slot, op_.filters, sums);
  }

  ConvTranspose op_;
  std::int64_t elements_in_;
  TensorDesc out_;
  Lines lines_;  // of the output
  int threads_;
  WeightedOp run_;  // the mirrored convolution
  Needs needs_;
  std::size_t grad_in_at_ = 0;  // the gradient of the input that is to be added, behind the library's workspace
};

}  // namespace

std::unique_ptr<Kernel> make(const ConvTranspose& op, Inputs in, int threads) {
  try {
    return make_for<ConvTransposeKernel>(in[0].dtype, op, in[0], threads);
  } catch (const dnnl::error& e) {
    if (in[0].dtype == DType::bf16) return make_in_float(op, in[0], threads);
    throw DeviceError(fmt::format("oneDNN cannot run a transposed convolution of {} filters {} on {}: {}", op.filters,
                                  op.kernel.str(), in[0].sample_str(), e.what()));
  }
}

}  // namespace dtrain::cpu
