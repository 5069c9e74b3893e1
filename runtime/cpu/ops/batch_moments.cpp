// Sums of a micro batch for batch normalization over ranks.
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/channel_sums.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class BatchMomentsKernel final : public Kernel {
 public:
  BatchMomentsKernel(const TensorDesc& in, int threads) : lines_(in), threads_(threads) {}

  /// Of backward: a line of both gradients.
  Needs needs() const override {
    return {std::max(lines_.sums_bytes(), static_cast<std::size_t>(2 * lines_.width) * sizeof(double)), 0};
  }

  void forward(const OpArgs& a, Stream&) override {
    const double* sums = sum_moments(lines_, threads_, a.workspace.data, a.in[0].as<T>());
    auto* to = a.out[0].as<double>();
    std::copy(sums, sums + 2 * lines_.channels, to);
    to[2 * lines_.channels] = static_cast<double>(lines_.rows());
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    if (!wanted(g.in[0])) return;
    const T* x = a.in[0].as<T>();
    T* gx = g.in[0].grad.as<T>();
    const auto* gradients = g.out[0].as<double>();
    auto *of_sum = a.workspace.as<double>(), *of_square = of_sum + lines_.width;
    for (std::int64_t i = 0; i < lines_.width; ++i) {
      of_sum[i] = gradients[i % lines_.channels];
      of_square[i] = 2 * gradients[lines_.channels + i % lines_.channels];
    }
    const bool add = g.in[0].write == Write::accumulate;
    lines_.for_each(threads_, [=](std::int64_t at, std::int64_t n) {
      write_elements(gx + at, 0, n, add, [=](std::int64_t i) {
        return static_cast<float>(of_sum[i] + static_cast<double>(to_float(x[at + i])) * of_square[i]);
      });
    });
  }

 private:
  Lines lines_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const BatchMoments&, Inputs in, int threads) {
  return make_for<BatchMomentsKernel>(in[0].dtype, in[0], threads);
}

}  // namespace dtrain::cpu
