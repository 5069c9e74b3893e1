// What batch normalization shares, of a micro batch or with moments of all ranks: the normalization itself and its
// gradients; the activation is part of each pass. Two passes over memory in either direction: the sums, then element by
// element. A base that owns nothing; it runs on the calling thread and its OpenMP threads.
#pragma once

#include <cmath>

#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/channel_sums.hpp"

namespace dtrain::cpu {

/// Where x comes from that is normalized, and a line of what y = scale x + shift is made with.
template <class T>
struct Normalized {
  const T *x, *y;
  float *mean, *scale, *shift;
};

/// The gradient before the activation of element i of the line at `at`. The sign of relu's input is worked out again
/// rather than read: the same operations give the same bits.
template <Activation kind, class T>
float gradient_at(const Normalized<T>& n, const T* gy, std::int64_t at, std::int64_t i) {
  const float g = to_float(gy[at + i]);
  if constexpr (kind == Activation::none) return g;
  if constexpr (kind == Activation::relu)
    return activation_gradient<kind>(to_float(n.x[at + i]) * n.scale[i] + n.shift[i], g);
  return activation_gradient<kind>(to_float(n.y[at + i]), g);
}

template <class T>
class NormalizationKernel : public Kernel {
 public:
  NormalizationKernel(const BatchNorm& op, const TensorDesc& in, int threads)
      : lines_(in), activation_(op.activation), epsilon_(op.epsilon), threads_(threads) {}

  Needs needs() const override {
    return {lines_.sums_bytes() + static_cast<std::size_t>(7 * lines_.width) * sizeof(float), 0};
  }

 protected:
  /// Whether the pass keeps statistics.
  static bool keeps(const OpArgs& a) { return a.pass.mode == Mode::train && !a.pass.recompute; }

  /// Of sums and sums of squares over `count` values a channel: mean and 1 / standard deviation of the batch to
  /// `saved`, mean and unbiased variance to the step's sums.
  void keep_statistics(const OpArgs& a, const double* moments, double count) const {
    float *mean_out = a.saved[0].as<float>(), *inverse_out = a.saved[1].as<float>();
    float *mean_sum = a.state_sums[0].as<float>(), *variance_sum = a.state_sums[1].as<float>();
    for (std::int64_t c = 0; c < lines_.channels; ++c) {
      const double mean = moments[c] / count;
      const double squares = moments[lines_.channels + c] / count - mean * mean;
      const double variance = squares < 0 ? 0 : squares;  // NaN stays
      mean_out[c] = static_cast<float>(mean);
      inverse_out[c] = static_cast<float>(1.0 / std::sqrt(variance + epsilon_));
      const auto unbiased = static_cast<float>(variance * count / std::max(count - 1, 1.0));
      mean_sum[c] = (a.pass.first ? 0.0f : mean_sum[c]) + mean_out[c];
      variance_sum[c] = (a.pass.first ? 0.0f : variance_sum[c]) + unbiased;
    }
  }

  /// The running statistics in place of the batch's, which is as evaluation has them; none are added to the step's.
  void keep_running_statistics(const OpArgs& a) const {
    const float *mean = a.state[0].as<float>(), *variance = a.state[1].as<float>();
    for (std::int64_t c = 0; c < lines_.channels; ++c) {
      a.saved[0].as<float>()[c] = mean[c];
      a.saved[1].as<float>()[c] = static_cast<float>(1.0 / std::sqrt(static_cast<double>(variance[c]) + epsilon_));
      for (const Tensor& sum : a.state_sums) sum.as<float>()[c] = 0;
    }
  }

  void normalize(const OpArgs& a) const {
    const Normalized<T> v = normalized(a, a.pass.mode == Mode::train);
    T* y = a.out[0].as<T>();
    with_epilogue(activation_, [&](auto kind) {
      lines_.for_each(threads_, [=](std::int64_t at, std::int64_t n) {
        write_elements(y + at, 0, n, false, [=](std::int64_t i) {
          return activate<kind.value>(to_float(v.x[at + i]) * v.scale[i] + v.shift[i]);
        });
      });
    });
  }

  /// With the batch's statistics or the running ones. The lines lie in the workspace, behind the sums and before four
  /// that are free.
  Normalized<T> normalized(const OpArgs& a, bool train) const {
    const float *weight = a.params[0].as<float>(), *bias = a.params[1].as<float>();
    const float* centre = (train ? a.saved[0] : a.state[0]).template as<float>();
    const float* spread = (train ? a.saved[1] : a.state[1]).template as<float>();
    auto* mean = reinterpret_cast<float*>(a.workspace.as<std::byte>() + lines_.sums_bytes());
    float *scale = mean + lines_.width, *shift = scale + lines_.width;
    for (std::int64_t c = 0; c < lines_.channels; ++c) {
      const float inverse =
          train ? spread[c] : static_cast<float>(1.0 / std::sqrt(static_cast<double>(spread[c]) + epsilon_));
      mean[c] = centre[c];
      scale[c] = weight[c] * inverse;
      shift[c] = bias[c] - centre[c] * scale[c];
    }
    for (float* line : {mean, scale, shift}) lines_.repeat(line);
    return {a.in[0].as<T>(), a.out[0].as<T>(), mean, scale, shift};
  }

  /// Sums of the gradient, and of its product with the normalized x: gradients of bias and weight, and what the
  /// gradient of x needs. Returns both, in the last two lines of the workspace.
  const float* params_gradient(const OpArgs& a, const Normalized<T>& v, const T* gy,
                               std::span<const GradSlot> slots) const {
    const std::int64_t channels = lines_.channels;
    const double* sums = nullptr;
    with_epilogue(activation_, [&](auto kind) {
      sums = sum_channels(lines_, threads_, a.workspace.data,
                          [&](std::int64_t begin, std::int64_t end, double* g_sum, double* gx_sum) {
                            add_gradients<kind.value>(v, gy, begin, end, g_sum, gx_sum);
                          });
    });
    const float* inverse = a.saved[1].as<float>();
    float *kept = v.shift + 3 * lines_.width, *kept_with_x = kept + channels;
    for (std::int64_t c = 0; c < channels; ++c) {
      kept[c] = static_cast<float>(sums[c]);
      kept_with_x[c] = static_cast<float>(sums[channels + c] * static_cast<double>(inverse[c]));
    }
    write_slot<float>(slots[0], 0, channels, kept_with_x);
    write_slot<float>(slots[1], 0, channels, kept);
    return kept;
  }

  /// Four lines in float before their sum is added in double.
  template <Activation kind>
  void add_gradients(const Normalized<T>& v, const T* gy, std::int64_t begin, std::int64_t end, double* g_sum,
                     double* gx_sum) const {
    const std::int64_t width = lines_.width;
    const auto centred = [=](std::int64_t at, std::int64_t i) { return to_float(v.x[at + i]) - v.mean[i]; };
    std::int64_t at = begin;
    for (; at + 4 * width <= end; at += 4 * width) {
      const std::int64_t at1 = at + width, at2 = at1 + width, at3 = at2 + width;
#pragma omp simd
      for (std::int64_t i = 0; i < width; ++i) {
        const float g0 = gradient_at<kind>(v, gy, at, i), g1 = gradient_at<kind>(v, gy, at1, i);
        const float g2 = gradient_at<kind>(v, gy, at2, i), g3 = gradient_at<kind>(v, gy, at3, i);
        g_sum[i] += static_cast<double>((g0 + g1) + (g2 + g3));
        gx_sum[i] += static_cast<double>((g0 * centred(at, i) + g1 * centred(at1, i)) +
                                         (g2 * centred(at2, i) + g3 * centred(at3, i)));
      }
    }
    for (; at < end; at += width) {
      const std::int64_t n = std::min(width, end - at);
#pragma omp simd
      for (std::int64_t i = 0; i < n; ++i) {
        const float g = gradient_at<kind>(v, gy, at, i);
        g_sum[i] += static_cast<double>(g);
        gx_sum[i] += static_cast<double>(g * centred(at, i));
      }
    }
  }

  /// `moments_held`: their gradient goes its own way, or they are constants; `sums` may be null then.
  void data_gradient(const OpArgs& a, const Normalized<T>& v, const float* sums, const T* gy, const GradSlot& slot,
                     bool moments_held) const {
    T* gx = slot.grad.as<T>();  // may be gy
    const bool add = slot.write == Write::accumulate;
    float *offset = v.shift + lines_.width, *slope = offset + lines_.width;
    const float* inverse = a.saved[1].as<float>();
    const auto count = static_cast<float>(lines_.rows());
    for (std::int64_t c = 0; c < lines_.channels && !moments_held; ++c) {
      offset[c] = v.scale[c] * (sums[c] / count);
      slope[c] = v.scale[c] * inverse[c] * (sums[lines_.channels + c] / count);
    }
    if (!moments_held)
      for (float* line : {offset, slope}) lines_.repeat(line);
    with_epilogue(activation_, [&](auto kind) {
      lines_.for_each(threads_, [=](std::int64_t at, std::int64_t n) {
        if (moments_held) {
          write_elements(gx + at, 0, n, add,
                         [=](std::int64_t i) { return v.scale[i] * gradient_at<kind.value>(v, gy, at, i); });
        } else {
          write_elements(gx + at, 0, n, add, [=](std::int64_t i) {
            const float g = gradient_at<kind.value>(v, gy, at, i);
            return (v.scale[i] * g - offset[i]) - (to_float(v.x[at + i]) - v.mean[i]) * slope[i];
          });
        }
      });
    });
  }

  Lines lines_;
  Activation activation_;
  double epsilon_;
  int threads_;
};

}  // namespace dtrain::cpu
