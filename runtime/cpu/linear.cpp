// Linear layers on the canonical weights through oneDNN's sgemm: measured, plain weights are as fast as blocked copies
// here, and save packing them after each update and unpacking their gradients.
#include <algorithm>

#include "runtime/cpu/onednn.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

namespace {

/// Adds the bias to each row and applies the activation.
void finish_rows(float* y, const float* bias, std::int64_t rows, std::int64_t units, bool relu) {
  for (std::int64_t r = 0; r < rows; ++r) {
    float* row = y + r * units;
    if (bias && relu) {
#pragma omp simd
      for (std::int64_t u = 0; u < units; ++u) {
        const float v = row[u] + bias[u];
        row[u] = v < 0.0f ? 0.0f : v;
      }
    } else if (bias) {
#pragma omp simd
      for (std::int64_t u = 0; u < units; ++u) row[u] += bias[u];
    } else if (relu) {
#pragma omp simd
      for (std::int64_t u = 0; u < units; ++u) row[u] = row[u] < 0.0f ? 0.0f : row[u];
    }
  }
}

class LinearKernel final : public Kernel {
 public:
  LinearKernel(const Linear& op, const TensorDesc& in, int threads)
      : op_(op),
        n_(in.shape[0]),
        features_(in.shape[1]),
        channels_(in.origin[0]),
        pixels_(in.origin[1] * in.origin[2]),
        permuted_(in.layout == Layout::flattened_channels_last),
        threads_(threads) {}

  Needs needs() const override {
    const std::size_t weights = static_cast<std::size_t>(op_.units * features_) * sizeof(float);
    return permuted_ ? Needs{weights, weights} : Needs{};
  }

  /// Columns from (channel, pixel) order to the (pixel, channel) order in which a flattened image lies.
  void pack(std::span<const Tensor> master, Tensor packed, Stream&) override {
    if (!permuted_) return;
    const float* from = master[0].as<float>();
    float* to = packed.as<float>();
    parallel_chunks(op_.units, 8, threads_, [=, this](std::int64_t begin, std::int64_t end) {
      for (std::int64_t u = begin; u < end; ++u)
        for (std::int64_t p = 0; p < pixels_; ++p)
          for (std::int64_t c = 0; c < channels_; ++c)
            to[u * features_ + p * channels_ + c] = from[u * features_ + c * pixels_ + p];
    });
  }

  void forward(const OpArgs& a, Stream&) override {
    const OmpThreads scope(threads_);
    float* y = a.out[0].as<float>();
    sgemm('N', 'T', n_, op_.units, features_, a.in[0].as<float>(), features_, weights(a), features_, 0.0f, y,
          op_.units);
    const float* bias = op_.bias ? a.params[1].as<float>() : nullptr;
    parallel_chunks(
        n_, std::max<std::int64_t>(1, 16384 / op_.units), threads_, [=, this](std::int64_t begin, std::int64_t end) {
          finish_rows(y + begin * op_.units, bias, end - begin, op_.units, op_.activation == Activation::relu);
        });
  }

  void backward_activation(const OpArgs& a, Tensor grad_out, Stream&) override {
    if (op_.activation == Activation::relu)
      mask_relu_gradient(a.out[0].as<float>(), grad_out.as<float>(), n_ * op_.units, threads_);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    const OmpThreads scope(threads_);
    const float* gy = g.out[0].as<float>();
    if (!g.in.empty() && g.in[0].write != Write::none) {
      sgemm('N', 'N', n_, features_, op_.units, gy, op_.units, weights(a), features_, beta(g.in[0]),
            g.in[0].grad.as<float>(), features_);
    }
    if (!g.params.empty() && g.params[0].write != Write::none) weight_gradient(a, gy, g.params[0]);
    if (g.params.size() > 1 && g.params[1].write != Write::none) bias_gradient(gy, g.params[1]);
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
    parallel_chunks(op_.units, 8, threads_, [=, this](std::int64_t begin, std::int64_t end) {
      for (std::int64_t u = begin; u < end; ++u) {
        for (std::int64_t c = 0; c < channels_; ++c) {
          for (std::int64_t p = 0; p < pixels_; ++p) {
            float& out = to[u * features_ + c * pixels_ + p];
            const float v = from[u * features_ + p * channels_ + c];
            out = add ? out + v : v;
          }
        }
      }
    });
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

  Linear op_;
  std::int64_t n_, features_, channels_, pixels_;
  bool permuted_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make_linear(const Linear& op, std::span<const TensorDesc> in, int threads) {
  return std::make_unique<LinearKernel>(op, in[0], threads);
}

}  // namespace dtrain::cpu
