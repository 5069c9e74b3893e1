// Loss ops: sums over the samples of a micro batch, added to those of the step's earlier micro batches.
#include <bit>
#include <cmath>
#include <limits>

#include "runtime/cpu/op_kernels.hpp"

namespace dtrain::cpu {

namespace {

/// e^x for x <= 0 in plain arithmetic, so that loops over it become vector code (Cody and Waite's reduction, Cephes'
/// polynomial; relative error below 2e-7). NaN stays NaN; below -87 it gives e^-87.
inline float exp_nonpositive(float x) {
  x = x < -87.0f ? -87.0f : x;
  constexpr float to_integer = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const float shifted = x * 1.44269504f + to_integer;
  const float n = shifted - to_integer;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const std::uint32_t exponent = (std::bit_cast<std::uint32_t>(shifted) + 127u) << 23;
  return p * std::bit_cast<float>(exponent);
}

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
    for (std::int64_t l = 0; l < lanes; ++l) sums[l] += exp_nonpositive(x[i + l] - max);
  for (std::int64_t l = 0; i + l < n; ++l) sums[l] += exp_nonpositive(x[i + l] - max);
  for (std::int64_t half = lanes / 2; half > 0; half /= 2)
    for (std::int64_t l = 0; l < half; ++l) sums[l] += sums[l + half];
  return sums[0];
}

struct Sums {
  double loss = 0, weight = 0, correct = 0;
  void write(const OpArgs& a) const {
    float* out = a.out[0].as<float>();
    const float values[loss_sum_count] = {static_cast<float>(loss), static_cast<float>(weight),
                                          static_cast<float>(correct), 0.0f};
    for (int i = 0; i < loss_sum_count; ++i) out[i] = a.pass.first ? values[i] : out[i] + values[i];
  }
};

class SoftmaxCrossEntropyKernel final : public Kernel {
 public:
  explicit SoftmaxCrossEntropyKernel(const Shape& logits) : samples_(logits[0]), classes_(logits[1]) {}

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
      sums.loss += static_cast<double>(weights[s]) * (static_cast<double>(lse) - static_cast<double>(x[label]));
      // Correct if the first of the largest logits is the label's.
      std::int64_t first = 0;
      while (first < label && x[first] != max) ++first;
      if (first == label && x[label] == max) sums.correct += 1;
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
      const float w = known ? weights[s] : std::numeric_limits<float>::quiet_NaN(), lse = saved[s];
      const float before = known ? gx[label] : 0.0f;
      if (add) {
        for (std::int64_t c = 0; c < classes_; ++c) gx[c] += w * exp_nonpositive(x[c] - lse);
      } else {
        for (std::int64_t c = 0; c < classes_; ++c) gx[c] = w * exp_nonpositive(x[c] - lse);
      }
      if (known) {
        const float own = w * (exp_nonpositive(x[label] - lse) - 1.0f);
        gx[label] = add ? before + own : own;
      }
    }
  }

 private:
  std::int64_t samples_, classes_;
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
      const float factor = 2.0f * weights[s] / static_cast<float>(values_);
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

std::unique_ptr<Kernel> make_softmax_cross_entropy(const SoftmaxCrossEntropy&, std::span<const TensorDesc> in) {
  return std::make_unique<SoftmaxCrossEntropyKernel>(in[0].shape);
}
std::unique_ptr<Kernel> make_mean_squared_error(std::span<const TensorDesc> in) {
  return std::make_unique<MeanSquaredErrorKernel>(in[0].shape);
}

}  // namespace dtrain::cpu
