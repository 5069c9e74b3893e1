// Batch normalization with moments that were summed over ranks.
#include "runtime/cpu/ops/normalization.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class BatchNormalizeKernel final : public NormalizationKernel<T> {
 public:
  using NormalizationKernel<T>::NormalizationKernel;

  void forward(const OpArgs& a, Stream&) override {
    const auto* moments = a.in[1].as<double>();
    if (this->keeps(a)) this->keep_statistics(a, moments, moments[2 * this->lines_.channels]);
    this->normalize(a);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    const T* gy = g.out[0].as<T>();
    const Normalized<T> v = this->normalized(a, true);
    const float* sums = this->params_gradient(a, v, gy, g.params);
    if (wanted(g.in, 1)) moments_gradient(a, sums, g.in[1]);
    if (wanted(g.in, 0)) this->data_gradient(a, v, sums, gy, g.in[0], true);
  }

 private:
  /// Through mean = sum / count and variance = squares / count - mean^2; the count is no variable.
  void moments_gradient(const OpArgs& a, const float* sums, const GradSlot& slot) const {
    const float *weight = a.params[0].as<float>(), *inverses = a.saved[1].as<float>();
    const auto* moments = a.in[1].as<double>();
    auto* to = slot.grad.as<double>();
    const std::int64_t channels = this->lines_.channels;
    const bool add = slot.write == Write::accumulate;
    const auto put = [&](std::int64_t i, double v) { to[i] = add ? to[i] + v : v; };
    const double count = moments[2 * channels];
    for (std::int64_t c = 0; c < channels; ++c) {
      const auto inverse = static_cast<double>(inverses[c]);
      const double scale = static_cast<double>(weight[c]) * inverse;
      const double of_variance = -0.5 * scale * inverse * static_cast<double>(sums[channels + c]);
      const double of_mean = -scale * static_cast<double>(sums[c]);
      put(c, (of_mean - 2 * (moments[c] / count) * of_variance) / count);
      put(channels + c, of_variance / count);
    }
    put(2 * channels, 0);
  }
};

}  // namespace

std::unique_ptr<Kernel> make(const BatchNormalize& op, Inputs in, int threads) {
  return make_for<BatchNormalizeKernel>(in[0].dtype, op.settings(), in[0], threads);
}

}  // namespace dtrain::cpu
