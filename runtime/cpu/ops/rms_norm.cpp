// RMS normalization of each row: the features of a sample, or the channels at a position.
#include <cmath>

#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/row_sums.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class RmsNormKernel final : public Kernel {
 public:
  RmsNormKernel(const RmsNorm& op, const TensorDesc& in, int threads)
      : lines_(in), epsilon_(static_cast<float>(op.epsilon)), threads_(threads) {}

  Needs needs() const override { return {lines_.sums_bytes(), 0}; }

  void forward(const OpArgs& a, Stream&) override {
    const float* weight = a.params[0].as<float>();
    const std::int64_t n = lines_.channels;
    const bool keep = a.pass.mode == Mode::train && !a.pass.recompute;
    for_rows(lines_, threads_, [&](std::int64_t row) {
      const T* x = a.in[0].as<T>() + row * n;
      const float squares = sum_of(n, [=](std::int64_t i) { return to_float(x[i]) * to_float(x[i]); });
      const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(n) + epsilon_);
      if (keep) a.saved[0].as<float>()[row] = inverse;
      write_elements(a.out[0].as<T>() + row * n, 0, n, false,
                     [=](std::int64_t i) { return to_float(x[i]) * inverse * weight[i]; });
    });
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    const T *x = a.in[0].as<T>(), *gy = g.out[0].as<T>();
    const float *weight = a.params[0].as<float>(), *inverse = a.saved[0].as<float>();
    if (wanted(g.params, 0)) weight_gradient(a, x, gy, g.params[0]);
    if (!wanted(g.in, 0)) return;
    const std::int64_t n = lines_.channels;
    const bool add = g.in[0].write == Write::accumulate;
    for_rows(lines_, threads_, [&](std::int64_t row) {
      const T *from = x + row * n, *gradient = gy + row * n;
      const float s = inverse[row];
      const auto at = [=](std::int64_t i) { return to_float(gradient[i]) * weight[i]; };
      const auto unit = [=](std::int64_t i) { return to_float(from[i]) * s; };
      const float slope = sum_of(n, [=](std::int64_t i) { return at(i) * unit(i); }) / static_cast<float>(n);
      write_elements(g.in[0].grad.as<T>() + row * n, 0, n, add,  // may be gy
                     [=](std::int64_t i) { return s * (at(i) - unit(i) * slope); });
    });
  }

 private:
  void weight_gradient(const OpArgs& a, const T* x, const T* gy, const GradSlot& slot) const {
    const float* inverse = a.saved[0].as<float>();
    const std::int64_t n = lines_.channels;
    const double* sums = sum_channels(
        lines_, threads_, a.workspace.data, [&](std::int64_t begin, std::int64_t end, double* sum, double* /*second*/) {
          for (std::int64_t row = begin / n; row < end / n; ++row) {
            const T *from = x + row * n, *gradient = gy + row * n;
            const float s = inverse[row];
#pragma omp simd
            for (std::int64_t i = 0; i < n; ++i)
              sum[i] += static_cast<double>(to_float(gradient[i]) * (to_float(from[i]) * s));
          }
        });
    write_sums(slot, n, sums);
  }

  Lines lines_;
  float epsilon_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const RmsNorm& op, Inputs in, int threads) {
  return make_for<RmsNormKernel>(in[0].dtype, op, in[0], threads);
}

}  // namespace dtrain::cpu
