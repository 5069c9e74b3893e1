// Mean squared error: sums over the positions of a micro batch.
#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/loss_sums.hpp"

namespace dtrain::cpu {

namespace {

constexpr std::int64_t lanes = 16;

template <class T>
class MeanSquaredErrorKernel final : public Kernel {
 public:
  MeanSquaredErrorKernel(Inputs in, int threads) : sums_(in[0], in[2], threads), values_(in[0].channels()) {}
  Needs needs() const override { return {loss_bytes(sums_.rows), 0}; }

  void forward(const OpArgs& a, Stream&) override {
    const RowWeights weights = sums_.weights(a);
    sums_.forward(a, [&](std::int64_t row) {
      RowLoss result;
      const float weight = weights.of(row);
      if (weight == 0) return result;
      const T* x = a.in[0].as<T>() + row * values_;
      const float* t = a.in[1].as<float>() + row * values_;
      result.weight = static_cast<double>(weight);
      result.loss = static_cast<double>(weight) * squares(x, t) / static_cast<double>(values_);
      result.positions = 1;
      return result;
    });
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    if (!wanted(g.in[0])) return;
    const RowWeights weights = sums_.weights(a);
    const float seed = a.step.loss_scale * a.step.loss_seed[a.loss];
    const bool add = g.in[0].write == Write::accumulate;
    sums_.each_row([&](std::int64_t row) {
      const T* x = a.in[0].as<T>() + row * values_;
      const float* t = a.in[1].as<float>() + row * values_;
      T* gx = g.in[0].grad.as<T>() + row * values_;
      const float weight = weights.of(row), factor = 2.0f * (weight * seed) / static_cast<float>(values_);
      if (weight != 0) {
        write_elements(gx, 0, values_, add, [=](std::int64_t i) { return factor * (to_float(x[i]) - t[i]); });
      } else if (!add) {
        for (std::int64_t i = 0; i < values_; ++i) gx[i] = from_float<T>(0.0f);
      }
    });
  }

 private:
  double squares(const T* x, const float* t) const {
    double partial[lanes] = {};
    std::int64_t i = 0;
    for (; i + lanes <= values_; i += lanes) {
      for (std::int64_t l = 0; l < lanes; ++l) {
        const double d = static_cast<double>(to_float(x[i + l]) - t[i + l]);
        partial[l] += d * d;
      }
    }
    for (std::int64_t l = 0; i + l < values_; ++l) {
      const double d = static_cast<double>(to_float(x[i + l]) - t[i + l]);
      partial[l] += d * d;
    }
    for (std::int64_t half = lanes / 2; half > 0; half /= 2)
      for (std::int64_t l = 0; l < half; ++l) partial[l] += partial[l + half];
    return partial[0];
  }

  LossSums sums_;
  std::int64_t values_;
};

}  // namespace

std::unique_ptr<Kernel> make(const MeanSquaredError&, Inputs in, int threads) {
  return make_for<MeanSquaredErrorKernel>(in[0].dtype, in, threads);
}

}  // namespace dtrain::cpu
