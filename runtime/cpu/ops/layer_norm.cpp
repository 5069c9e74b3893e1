// Layer normalization of each row: the features of a sample, or the channels at a pixel. A row stays in the first cache
// between the passes over it.
#include <cmath>

#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/row_sums.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class LayerNormKernel final : public Kernel {
 public:
  LayerNormKernel(const LayerNorm& op, const TensorDesc& in, int threads)
      : lines_(in), epsilon_(static_cast<float>(op.epsilon)), threads_(threads) {}

  Needs needs() const override { return {lines_.sums_bytes(), 0}; }

  void forward(const OpArgs& a, Stream&) override {
    const float *weight = a.params[0].as<float>(), *bias = a.params[1].as<float>();
    const std::int64_t n = lines_.channels;
    const bool keep = a.pass.mode == Mode::train && !a.pass.recompute;
    for_rows(lines_, threads_, [&](std::int64_t row) {
      const T* x = a.in[0].as<T>() + row * n;
      const float mean = sum_of(n, [=](std::int64_t i) { return to_float(x[i]); }) / static_cast<float>(n);
      const float squares = sum_of(n, [=](std::int64_t i) {
        const float d = to_float(x[i]) - mean;
        return d * d;
      });
      const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(n) + epsilon_);
      if (keep) {
        a.saved[0].as<float>()[row] = mean;
        a.saved[1].as<float>()[row] = inverse;
      }
      write_elements(a.out[0].as<T>() + row * n, 0, n, false,
                     [=](std::int64_t i) { return (to_float(x[i]) - mean) * inverse * weight[i] + bias[i]; });
    });
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    const T *x = a.in[0].as<T>(), *gy = g.out[0].as<T>();
    const float *mean = a.saved[0].as<float>(), *inverse = a.saved[1].as<float>();
    if (wanted(g.params, 0) || wanted(g.params, 1)) params_gradient(a, x, gy, g.params);
    if (!wanted(g.in, 0)) return;
    const std::int64_t n = lines_.channels;
    const float* weight = a.params[0].as<float>();
    const bool add = g.in[0].write == Write::accumulate;
    for_rows(lines_, threads_, [&](std::int64_t row) {
      const T *from = x + row * n, *gradient = gy + row * n;
      const float m = mean[row], s = inverse[row], share = 1.0f / static_cast<float>(n);
      const auto at = [=](std::int64_t i) { return to_float(gradient[i]) * weight[i]; };
      const auto unit = [=](std::int64_t i) { return (to_float(from[i]) - m) * s; };
      const float level = sum_of(n, at) * share;
      const float slope = sum_of(n, [=](std::int64_t i) { return at(i) * unit(i); }) * share;
      write_elements(g.in[0].grad.as<T>() + row * n, 0, n, add,  // may be gy
                     [=](std::int64_t i) { return s * ((at(i) - level) - unit(i) * slope); });
    });
  }

 private:
  void params_gradient(const OpArgs& a, const T* x, const T* gy, std::span<const GradSlot> slots) const {
    const float *mean = a.saved[0].as<float>(), *inverse = a.saved[1].as<float>();
    const std::int64_t n = lines_.channels;
    const auto add_row = [=](std::int64_t row, double* g_sum, double* gx_sum) {
      const T *from = x + row * n, *gradient = gy + row * n;
      const float m = mean[row], s = inverse[row];
#pragma omp simd
      for (std::int64_t i = 0; i < n; ++i) {
        const float g = to_float(gradient[i]);
        g_sum[i] += static_cast<double>(g);
        gx_sum[i] += static_cast<double>(g * ((to_float(from[i]) - m) * s));
      }
    };
    const double* sums = sum_channels(lines_, threads_, a.workspace.data,
                                      [&](std::int64_t begin, std::int64_t end, double* g_sum, double* gx_sum) {
                                        for (std::int64_t row = begin / n; row < end / n; ++row)
                                          add_row(row, g_sum, gx_sum);
                                      });
    write_sums(slots[0], n, sums + n);
    write_sums(slots[1], n, sums);
  }

  Lines lines_;
  float epsilon_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const LayerNorm& op, Inputs in, int threads) {
  return make_for<LayerNormKernel>(in[0].dtype, op, in[0], threads);
}

}  // namespace dtrain::cpu
