// Loss ops: sums over the samples of a micro batch, added to those of the step's earlier micro batches.
#include <cmath>
#include <limits>

#include "runtime/cpu/op_kernels.hpp"
#include "runtime/ops/activation_math.hpp"

namespace dtrain::cpu {

namespace {

constexpr std::int64_t lanes = 16;

float row_max(const float* x, std::int64_t n) {
  float best[lanes];
  for (std::int64_t l = 0; l < lanes; ++l) best[l] = x[0];
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (std::int64_t l = 0; l < lanes; ++l) best[l] = x[i + l] > best[l] ? x[i + l] : best[l];
  for (; i < n; ++i) best[0] = x[i] > best[0] ? x[i] : best[0];
  for (std::int64_t l = 1; l < lanes; ++l) best[0] = best[l] > best[0] ? best[l] : best[0];
  return best[0];
}

/// Sum of e^(x - max), in an order that is fixed by n alone.
float row_exp_sum(const float* x, std::int64_t n, float max) {
  float sums[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (std::int64_t l = 0; l < lanes; ++l) sums[l] += exp_bounded(x[i + l] - max);
  for (std::int64_t l = 0; i + l < n; ++l) sums[l] += exp_bounded(x[i + l] - max);
  for (std::int64_t half = lanes / 2; half > 0; half /= 2)
    for (std::int64_t l = 0; l < half; ++l) sums[l] += sums[l + half];
  return sums[0];
}

/// How many logits come before that of the label when they are sorted, equal ones in the order of the classes.
std::int64_t rank_of(const float* x, std::int64_t n, std::int64_t label) {
  const float own = x[label];
  std::int64_t before = 0;
  for (std::int64_t c = 0; c < label; ++c) before += x[c] >= own;
  for (std::int64_t c = label + 1; c < n; ++c) before += x[c] > own;
  return before;
}

double row_sum(const float* x, std::int64_t n) {
  double sum = 0;
  for (std::int64_t c = 0; c < n; ++c) sum += static_cast<double>(x[c]);
  return sum;
}

struct Sums {
  double loss = 0, weight = 0, correct = 0, top5 = 0;
  void write(const OpArgs& a) const {
    float* out = a.out[0].as<float>();
    const float values[loss_sum_count] = {static_cast<float>(loss), static_cast<float>(weight),
                                          static_cast<float>(correct), static_cast<float>(top5)};
    for (int i = 0; i < loss_sum_count; ++i) out[i] = a.pass.first ? values[i] : out[i] + values[i];
  }
};

class SoftmaxCrossEntropyKernel final : public Kernel {
 public:
  SoftmaxCrossEntropyKernel(const SoftmaxCrossEntropy& op, const Shape& logits)
      : samples_(logits[0]), classes_(logits[1]), smoothing_(op.label_smoothing) {}

  void forward(const OpArgs& a, Stream&) override {
    const auto* labels = a.in[1].as<std::int32_t>();
    const float* weights = a.in[2].as<float>();
    float* saved = a.saved.empty() ? nullptr : a.saved[0].as<float>();
    Sums sums;
    for (std::int64_t s = 0; s < samples_; ++s) {
      if (saved) saved[s] = 0;
      if (weights[s] == 0) continue;
      const float* x = a.in[0].as<float>() + s * classes_;
      const std::int64_t label = labels[s];
      const float max = row_max(x, classes_);
      const float lse = max + std::log(row_exp_sum(x, classes_, max));
      if (saved) saved[s] = lse;
      sums.weight += static_cast<double>(weights[s]);
      if (label < 0 || label >= classes_) {
        sums.loss = std::numeric_limits<double>::quiet_NaN();
        continue;
      }
      double aim = (1.0 - smoothing_) * static_cast<double>(x[label]);
      if (smoothing_ > 0) aim += smoothing_ * row_sum(x, classes_) / static_cast<double>(classes_);
      sums.loss += static_cast<double>(weights[s]) * (static_cast<double>(lse) - aim);
      const std::int64_t rank = x[label] == x[label] ? rank_of(x, classes_, label) : classes_;
      if (rank < 1) sums.correct += 1;
      if (rank < 5) sums.top5 += 1;
    }
    sums.write(a);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    if (g.in[0].write == Write::none) return;
    const auto* labels = a.in[1].as<std::int32_t>();
    const float* weights = a.in[2].as<float>();
    const float* saved = a.saved[0].as<float>();
    const bool add = g.in[0].write == Write::accumulate;
    for (std::int64_t s = 0; s < samples_; ++s) {
      const float* x = a.in[0].as<float>() + s * classes_;
      float* gx = g.in[0].grad.as<float>() + s * classes_;
      const std::int64_t label = labels[s];
      if (weights[s] == 0) {
        if (!add)
          for (std::int64_t c = 0; c < classes_; ++c) gx[c] = 0.0f;
        continue;
      }
      const bool known = label >= 0 && label < classes_;
      const float w = known ? weights[s] * a.step.loss_scale : std::numeric_limits<float>::quiet_NaN(), lse = saved[s];
      const float before = known ? gx[label] : 0.0f;
      const auto share = static_cast<float>(smoothing_ / static_cast<double>(classes_));
      if (add) {
        for (std::int64_t c = 0; c < classes_; ++c) gx[c] += w * (exp_bounded(x[c] - lse) - share);
      } else {
        for (std::int64_t c = 0; c < classes_; ++c) gx[c] = w * (exp_bounded(x[c] - lse) - share);
      }
      if (known) {
        const auto aim = static_cast<float>(1.0 - smoothing_ + smoothing_ / static_cast<double>(classes_));
        const float own = w * (exp_bounded(x[label] - lse) - aim);
        gx[label] = add ? before + own : own;
      }
    }
  }

 private:
  std::int64_t samples_, classes_;
  double smoothing_;
};

class MeanSquaredErrorKernel final : public Kernel {
 public:
  explicit MeanSquaredErrorKernel(const Shape& prediction) : samples_(prediction[0]), values_(prediction[1]) {}

  void forward(const OpArgs& a, Stream&) override {
    const float* weights = a.in[2].as<float>();
    Sums sums;
    for (std::int64_t s = 0; s < samples_; ++s) {
      if (weights[s] == 0) continue;
      const float* x = a.in[0].as<float>() + s * values_;
      const float* t = a.in[1].as<float>() + s * values_;
      double partial[lanes] = {};
      std::int64_t i = 0;
      for (; i + lanes <= values_; i += lanes) {
        for (std::int64_t l = 0; l < lanes; ++l) {
          const double d = static_cast<double>(x[i + l] - t[i + l]);
          partial[l] += d * d;
        }
      }
      for (std::int64_t l = 0; i + l < values_; ++l) {
        const double d = static_cast<double>(x[i + l] - t[i + l]);
        partial[l] += d * d;
      }
      for (std::int64_t half = lanes / 2; half > 0; half /= 2)
        for (std::int64_t l = 0; l < half; ++l) partial[l] += partial[l + half];
      sums.weight += static_cast<double>(weights[s]);
      sums.loss += static_cast<double>(weights[s]) * partial[0] / static_cast<double>(values_);
    }
    sums.write(a);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    if (g.in[0].write == Write::none) return;
    const float* weights = a.in[2].as<float>();
    const bool add = g.in[0].write == Write::accumulate;
    for (std::int64_t s = 0; s < samples_; ++s) {
      const float* x = a.in[0].as<float>() + s * values_;
      const float* t = a.in[1].as<float>() + s * values_;
      float* gx = g.in[0].grad.as<float>() + s * values_;
      const float factor = 2.0f * (weights[s] * a.step.loss_scale) / static_cast<float>(values_);
      if (weights[s] == 0) {
        if (!add)
          for (std::int64_t i = 0; i < values_; ++i) gx[i] = 0.0f;
      } else if (add) {
        for (std::int64_t i = 0; i < values_; ++i) gx[i] += factor * (x[i] - t[i]);
      } else {
        for (std::int64_t i = 0; i < values_; ++i) gx[i] = factor * (x[i] - t[i]);
      }
    }
  }

 private:
  std::int64_t samples_, values_;
};

}  // namespace

std::unique_ptr<Kernel> make(const SoftmaxCrossEntropy& op, Inputs in, int /*threads*/) {
  return std::make_unique<SoftmaxCrossEntropyKernel>(op, in[0].shape);
}
std::unique_ptr<Kernel> make(const MeanSquaredError&, Inputs in, int /*threads*/) {
  return std::make_unique<MeanSquaredErrorKernel>(in[0].shape);
}

}  // namespace dtrain::cpu
