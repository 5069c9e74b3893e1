// Dense layers in bf16 through oneDNN's inner product: packed bf16 weights in the library's formats, f32 accumulation,
// f32 gradients of parameters.
#include <fmt/format.h>

#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/dense_weights.hpp"
#include "runtime/cpu/ops/weighted.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::cpu {

namespace {

class DenseBf16Kernel final : public Kernel {
 public:
  DenseBf16Kernel(const Dense& op, const TensorDesc& in, int threads)
      : op_(op),
        n_(in.rows()),
        features_(in.channels()),
        channels_(in.flattened.channels),
        pixels_(in.flattened.pixels),
        permuted_(in.is_flattened_image()),
        threads_(threads) {
    const OmpThreads scope(threads_);
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    const auto plans = plan_inner_product(engine, {n_, features_, op.units, op.bias, op.activation});
    const auto canonical = plain_desc({op.units, features_}, dnnl::memory::format_tag::oi);
    const auto ordered = plain_desc({op.units, features_}, dnnl::memory::format_tag::oi, DType::bf16);
    run_ = WeightedOp(engine, plans, permuted_ ? ordered : canonical, canonical, op.bias, DType::bf16, threads);
    const Needs own = run_.needs();
    ordered_at_ = own.packed;
    grad_plain_at_ = own.workspace;
    needs_ = own;
    if (permuted_) {
      needs_.packed += aligned(ordered.get_size());
      needs_.workspace += aligned(canonical.get_size());
    }
  }

  Needs needs() const override { return needs_; }

  /// A flattened image's columns are put in order first, in bf16 behind the copies.
  void pack(std::span<const Tensor> master, Tensor packed, Stream&) override {
    const OmpThreads scope(threads_);
    auto* const base = packed.as<std::byte>();
    const void* from = master[0].data;
    if (permuted_) {
      auto* const to = reinterpret_cast<Bf16*>(base + ordered_at_);
      permute_columns(master[0].as<float>(), to, op_.units, channels_, pixels_, threads_);
      from = to;
    }
    run_.pack(from, base);
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
    if (weights == Write::none) return;
    auto* const to = g.params[0].grad.as<float>();
    const bool add = weights == Write::accumulate;
    if (!permuted_) {
      run_.take_weight_gradient(a, to, add);
      return;
    }
    auto* const plain = reinterpret_cast<float*>(a.workspace.as<std::byte>() + grad_plain_at_);
    run_.take_weight_gradient(a, plain, false);
    unpermute_columns(plain, to, add, op_.units, channels_, pixels_, threads_);
  }

 private:
  Dense op_;
  std::int64_t n_, features_, channels_, pixels_;
  bool permuted_;
  int threads_;
  WeightedOp run_;
  Needs needs_;
  std::size_t ordered_at_ = 0, grad_plain_at_ = 0;  // behind what is the op's own, in packed and workspace
};

}  // namespace

std::unique_ptr<Kernel> make_dense_bf16(const Dense& op, const TensorDesc& in, int threads) {
  try {
    return std::make_unique<DenseBf16Kernel>(op, in, threads);
  } catch (const dnnl::error& e) {
    throw DeviceError(
        fmt::format("oneDNN cannot run a bfloat16 linear layer of {} units on {}: {}; use precision: "
                    "float32",
                    op.units, in.shape.str(), e.what()));
  }
}

}  // namespace dtrain::cpu
