// Dense layers. f32: oneDNN's sgemm on the canonical weights: measured, plain weights are as fast as blocked copies
// here, and save packing them after each update and unpacking their gradients. bf16: dense_bf16.cpp.

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/onednn.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/dense_weights.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

namespace {

class DenseKernel final : public Kernel {
 public:
  DenseKernel(const Dense& op, const TensorDesc& in, int threads)
      : op_(op),
        n_(in.rows()),
        features_(in.channels()),
        channels_(in.flattened.channels),
        pixels_(in.flattened.pixels),
        permuted_(in.is_flattened_image()),
        threads_(threads) {}

  Needs needs() const override {
    const std::size_t weights = static_cast<std::size_t>(op_.units * features_) * sizeof(float);
    return permuted_ ? Needs{weights, weights} : Needs{};
  }

  /// Columns from (channel, pixel) order to the (pixel, channel) order in which a flattened image lies.
  void pack(std::span<const Tensor> master, Tensor packed, Stream&) override {
    if (permuted_) permute_columns(master[0].as<float>(), packed.as<float>(), op_.units, channels_, pixels_, threads_);
  }

  void forward(const OpArgs& a, Stream&) override {
    const OmpThreads scope(threads_);
    sgemm('N', 'T', n_, op_.units, features_, a.in[0].as<float>(), features_, weights(a), features_, 0.0f,
          a.out[0].as<float>(), op_.units);
    bias_activate(op_.activation, a.out[0], op_.bias ? a.params[1].as<float>() : nullptr, threads_);
  }

  void backward_activation(const OpArgs& a, Tensor grad_out, Stream&) override {
    epilogue_gradient(op_.activation, a.out[0], grad_out, threads_);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    const OmpThreads scope(threads_);
    const float* gy = g.out[0].as<float>();
    if (wanted(g.in, 0)) {
      sgemm('N', 'N', n_, features_, op_.units, gy, op_.units, weights(a), features_, beta(g.in[0]),
            g.in[0].grad.as<float>(), features_);
    }
    if (wanted(g.params, 0)) weight_gradient(a, gy, g.params[0]);
    if (wanted(g.params, 1)) bias_gradient(gy, g.params[1]);
  }

 private:
  const float* weights(const OpArgs& a) const { return permuted_ ? a.packed.as<float>() : a.params[0].as<float>(); }
  static float beta(const GradSlot& slot) { return slot.write == Write::accumulate ? 1.0f : 0.0f; }

  void weight_gradient(const OpArgs& a, const float* gy, const GradSlot& slot) const {
    const float* x = a.in[0].as<float>();
    float* to = slot.grad.as<float>();
    if (!permuted_) {
      sgemm('T', 'N', op_.units, features_, n_, gy, op_.units, x, features_, beta(slot), to, features_);
      return;
    }
    float* from = a.workspace.as<float>();
    sgemm('T', 'N', op_.units, features_, n_, gy, op_.units, x, features_, 0.0f, from, features_);
    const bool add = slot.write == Write::accumulate;
    unpermute_columns(from, to, add, op_.units, channels_, pixels_, threads_);
  }

  /// Sums over the samples, in sample order.
  void bias_gradient(const float* gy, const GradSlot& slot) const {
    float* to = slot.grad.as<float>();
    parallel_chunks(op_.units, 256, threads_, [=, this](std::int64_t begin, std::int64_t end) {
      alignas(64) float sums[256] = {};
      const std::int64_t units = end - begin;
      for (std::int64_t s = 0; s < n_; ++s) {
        const float* row = gy + s * op_.units + begin;
#pragma omp simd
        for (std::int64_t u = 0; u < units; ++u) sums[u] += row[u];
      }
      const bool add = slot.write == Write::accumulate;
      for (std::int64_t u = 0; u < units; ++u) to[begin + u] = add ? to[begin + u] + sums[u] : sums[u];
    });
  }

  Dense op_;
  std::int64_t n_, features_, channels_, pixels_;
  bool permuted_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const Dense& op, Inputs in, int threads) {
  if (in[0].dtype == DType::bf16) return make_dense_bf16(op, in[0], threads);
  return std::make_unique<DenseKernel>(op, in[0], threads);
}

}  // namespace dtrain::cpu
