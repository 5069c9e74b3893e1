// Softmax and cross-entropy: sums over the positions of a micro batch.
#include <cmath>
#include <limits>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/loss_sums.hpp"

namespace dtrain::cpu {

namespace {

constexpr std::int64_t lanes = 16;

template <class T>
float row_max(const T* x, std::int64_t n) {
  float best[lanes];
  for (std::int64_t l = 0; l < lanes; ++l) best[l] = to_float(x[0]);
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (std::int64_t l = 0; l < lanes; ++l) best[l] = to_float(x[i + l]) > best[l] ? to_float(x[i + l]) : best[l];
  for (; i < n; ++i) best[0] = to_float(x[i]) > best[0] ? to_float(x[i]) : best[0];
  for (std::int64_t l = 1; l < lanes; ++l) best[0] = best[l] > best[0] ? best[l] : best[0];
  return best[0];
}

/// Sum of e^(x - max), in an order that is fixed by n alone.
template <class T>
float row_exp_sum(const T* x, std::int64_t n, float max) {
  float sums[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (std::int64_t l = 0; l < lanes; ++l) sums[l] += exp_bounded(to_float(x[i + l]) - max);
  for (std::int64_t l = 0; i + l < n; ++l) sums[l] += exp_bounded(to_float(x[i + l]) - max);
  for (std::int64_t half = lanes / 2; half > 0; half /= 2)
    for (std::int64_t l = 0; l < half; ++l) sums[l] += sums[l + half];
  return sums[0];
}

/// How many logits come before that of the label when they are sorted, equal ones in the order of the classes.
template <class T>
std::int64_t rank_of(const T* x, std::int64_t n, std::int64_t label) {
  const float own = to_float(x[label]);
  std::int64_t before = 0;
  for (std::int64_t c = 0; c < label; ++c) before += to_float(x[c]) >= own;
  for (std::int64_t c = label + 1; c < n; ++c) before += to_float(x[c]) > own;
  return before;
}

template <class T>
double row_sum(const T* x, std::int64_t n) {
  double sum = 0;
  for (std::int64_t c = 0; c < n; ++c) sum += static_cast<double>(to_float(x[c]));
  return sum;
}

template <class T>
class SoftmaxCrossEntropyKernel final : public Kernel {
 public:
  SoftmaxCrossEntropyKernel(const SoftmaxCrossEntropy& op, Inputs in, int threads)
      : op_(op), sums_(in[0], in[2], threads), classes_(in[0].channels()), smoothing_(op.label_smoothing) {}
  Needs needs() const override { return {loss_bytes(sums_.rows), 0}; }

  void forward(const OpArgs& a, Stream&) override {
    const RowLabels labels = labels_of(a);
    const RowWeights weights = sums_.weights(a);
    float* saved = a.saved.empty() ? nullptr : a.saved[0].as<float>();
    const T* const logits = a.in[0].as<T>();
    sums_.forward(a, [=, n = classes_, smoothing = smoothing_](std::int64_t row) {
      RowLoss result;
      if (saved) saved[row] = 0;
      const float weight = weights.of(row);
      if (weight == 0) return result;  // whatever its label is
      const std::int64_t label = labels.of(row);
      if (labels.ignored_of(label)) return result;
      const T* x = logits + row * n;
      const float max = row_max(x, n);
      const float lse = max + std::log(row_exp_sum(x, n, max));
      if (saved) saved[row] = lse;
      result.weight = static_cast<double>(weight);
      result.positions = 1;
      if (label < 0 || label >= n) {
        result.loss = std::numeric_limits<double>::quiet_NaN();
        return result;
      }
      const float own = to_float(x[label]);
      double aim = (1.0 - smoothing) * static_cast<double>(own);
      if (smoothing > 0) aim += smoothing * row_sum(x, n) / static_cast<double>(n);
      result.loss = static_cast<double>(weight) * (static_cast<double>(lse) - aim);
      const std::int64_t rank = own == own ? rank_of(x, n, label) : n;
      if (rank < 1) result.correct = 1;
      if (rank < 5) result.top5 = 1;
      return result;
    });
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    if (g.in[0].write == Write::none) return;
    const RowLabels labels = labels_of(a);
    const RowWeights weights = sums_.weights(a);
    const float* saved = a.saved[0].as<float>();
    const float seed = a.step.loss_scale * a.step.loss_seed[a.loss];
    const bool add = g.in[0].write == Write::accumulate;
    const auto share = static_cast<float>(smoothing_ / static_cast<double>(classes_));
    const auto aim = static_cast<float>(1.0 - smoothing_ + smoothing_ / static_cast<double>(classes_));
    const T* const logits = a.in[0].as<T>();
    T* const gradient = g.in[0].grad.as<T>();
    sums_.each_row([=, n = classes_](std::int64_t row) {
      const T* x = logits + row * n;
      T* gx = gradient + row * n;
      const std::int64_t label = labels.of(row);
      const float weight = weights.of(row);
      if (weight == 0 || labels.ignored_of(label)) {
        if (!add)
          for (std::int64_t c = 0; c < n; ++c) gx[c] = from_float<T>(0.0f);
        return;
      }
      const bool known = label >= 0 && label < n;
      const float w = known ? weight * seed : std::numeric_limits<float>::quiet_NaN(), lse = saved[row];
      const float before = known && add ? to_float(gx[label]) : 0.0f;
      // Plain loops: rows are short, and `omp simd` would take what is left of a vector one by one.
      if (add) {
        for (std::int64_t c = 0; c < n; ++c)
          gx[c] = from_float<T>(to_float(gx[c]) + w * (exp_bounded(to_float(x[c]) - lse) - share));
      } else {
        for (std::int64_t c = 0; c < n; ++c) gx[c] = from_float<T>(w * (exp_bounded(to_float(x[c]) - lse) - share));
      }
      if (known) {
        const float own = w * (exp_bounded(to_float(x[label]) - lse) - aim);
        gx[label] = from_float<T>(add ? before + own : own);
      }
    });
  }

 private:
  RowLabels labels_of(const OpArgs& a) const {
    return {a.in[1].data, a.in[1].desc.dtype, op_.ignore.has_value(), op_.ignore.value_or(0)};
  }
  SoftmaxCrossEntropy op_;
  LossSums sums_;
  std::int64_t classes_;
  double smoothing_;
};

}  // namespace

std::unique_ptr<Kernel> make(const SoftmaxCrossEntropy& op, Inputs in, int threads) {
  return make_for<SoftmaxCrossEntropyKernel>(in[0].dtype, op, in, threads);
}

}  // namespace dtrain::cpu
