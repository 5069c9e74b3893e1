// Batch normalization of one micro batch, or with moments that were summed over ranks; the activation is part of each
// pass. Two passes over memory in either direction: the sums, then element by element.
#include <cmath>

#include "runtime/cpu/channel_sums.hpp"
#include "runtime/cpu/op_kernels.hpp"

namespace dtrain::cpu {

namespace {

/// Where x comes from that is normalized, what its statistics were, and what y = scale x + shift is made with.
template <class T>
struct Normalized {
  const T *x, *y;
  const float *mean, *scale, *shift;
  std::int64_t channels;
};

/// The gradient before the activation of channel c in row `at`. The sign of relu's input is worked out again rather
/// than read: the same operations give the same bits.
template <Activation kind, class T>
float gradient_at(const Normalized<T>& n, const T* gy, std::int64_t at, std::int64_t c) {
  const float g = to_float(gy[at + c]);
  if constexpr (kind == Activation::none) return g;
  if constexpr (kind == Activation::relu)
    return activation_gradient<kind>(to_float(n.x[at + c]) * n.scale[c] + n.shift[c], g);
  return activation_gradient<kind>(to_float(n.y[at + c]), g);
}

template <class T>
class BatchNormKernel final : public Kernel {
 public:
  template <class Op>
  BatchNormKernel(const Op& op, const Shape& in, bool over_ranks, int threads)
      : rows_(in), activation_(op.activation), epsilon_(op.epsilon), over_ranks_(over_ranks), threads_(threads) {}

  Needs needs() const override {
    return {rows_.sums_bytes() + static_cast<std::size_t>(4 * rows_.channels) * sizeof(float), 0};
  }

  void forward(const OpArgs& a, Stream&) override {
    const bool train = a.pass.mode == Mode::train;
    if (train && !a.pass.recompute) keep_statistics(a);
    const Normalized<T> n = normalized(a, train);
    T* y = a.out[0].as<T>();
    with_epilogue(activation_, [&](auto kind) {
      for_rows([&](std::int64_t row) {
        const T* x = n.x + row * n.channels;
        write_elements(y + row * n.channels, 0, n.channels, false,
                       [=](std::int64_t c) { return activate<kind.value>(to_float(x[c]) * n.scale[c] + n.shift[c]); });
      });
    });
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    const auto wanted = [](const GradSlot& slot) { return slot.write != Write::none; };
    const T* gy = g.out[0].as<T>();
    if (std::any_of(g.params.begin(), g.params.end(), wanted)) params_gradient(a, gy, g.params);
    if (g.in.size() > 1 && wanted(g.in[1])) moments_gradient(a, g.in[1]);
    if (!g.in.empty() && wanted(g.in[0])) data_gradient(a, gy, g.in[0]);
  }

 private:
  template <class Body>
  void for_rows(const Body& body) const {
    parallel_chunks(rows_.count, rows_.a_task, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) body(row);
    });
  }

  float* coefficients(const OpArgs& a) const {
    return reinterpret_cast<float*>(a.workspace.as<std::byte>() + rows_.sums_bytes());
  }

  /// Mean and 1 / deviation of the batch to `saved`, mean and unbiased variance to the step's sums.
  void keep_statistics(const OpArgs& a) const {
    const T* x = a.in[0].as<T>();
    const std::int64_t channels = rows_.channels;
    const double* moments = over_ranks_ ? a.in[1].as<double>()
                                        : sum_channels(rows_, threads_, a.workspace.data,
                                                       [=](std::int64_t begin, std::int64_t end, double* s, double* q) {
                                                         add_moments(x + begin * channels, end - begin, channels, s, q);
                                                       });
    const double count = over_ranks_ ? moments[2 * channels] : static_cast<double>(rows_.count);
    float *mean_out = a.saved[0].as<float>(), *inverse_out = a.saved[1].as<float>();
    float *mean_sum = a.state_sums[0].as<float>(), *variance_sum = a.state_sums[1].as<float>();
    for (std::int64_t c = 0; c < channels; ++c) {
      const double mean = moments[c] / count;
      const double squares = moments[channels + c] / count - mean * mean;
      const double variance = squares < 0 ? 0 : squares;  // NaN stays
      mean_out[c] = static_cast<float>(mean);
      inverse_out[c] = static_cast<float>(1.0 / std::sqrt(variance + epsilon_));
      const auto unbiased = static_cast<float>(variance * count / std::max(count - 1, 1.0));
      mean_sum[c] = (a.pass.first ? 0.0f : mean_sum[c]) + mean_out[c];
      variance_sum[c] = (a.pass.first ? 0.0f : variance_sum[c]) + unbiased;
    }
  }

  /// With the batch's statistics or the running ones; writes scale and shift to the workspace.
  Normalized<T> normalized(const OpArgs& a, bool train) const {
    const float *weight = a.params[0].as<float>(), *bias = a.params[1].as<float>();
    const float* mean = (train ? a.saved[0] : a.state[0]).template as<float>();
    const float* spread = (train ? a.saved[1] : a.state[1]).template as<float>();
    float *scale = coefficients(a), *shift = scale + rows_.channels;
    for (std::int64_t c = 0; c < rows_.channels; ++c) {
      const float inverse =
          train ? spread[c] : static_cast<float>(1.0 / std::sqrt(static_cast<double>(spread[c]) + epsilon_));
      scale[c] = weight[c] * inverse;
      shift[c] = bias[c] - mean[c] * scale[c];
    }
    return {a.in[0].as<T>(), a.out[0].as<T>(), mean, scale, shift, rows_.channels};
  }

  /// Sums of the gradient, and of its product with the normalized x: gradients of bias and weight, and what the
  /// gradient of x needs.
  void params_gradient(const OpArgs& a, const T* gy, std::span<const GradSlot> slots) const {
    const Normalized<T> n = normalized(a, true);
    const double* sums = nullptr;
    with_epilogue(activation_, [&](auto kind) {
      sums = sum_channels(rows_, threads_, a.workspace.data,
                          [&](std::int64_t begin, std::int64_t end, double* g_sum, double* gx_sum) {
                            add_gradients<kind.value>(n, gy, begin, end, g_sum, gx_sum);
                          });
    });
    const float* inverse = a.saved[1].as<float>();
    float *kept = a.saved[2].as<float>(), *kept_with_x = kept + n.channels;
    for (std::int64_t c = 0; c < n.channels; ++c) {
      kept[c] = static_cast<float>(sums[c]);
      kept_with_x[c] = static_cast<float>(sums[n.channels + c] * static_cast<double>(inverse[c]));
    }
    write_slot<float>(slots[0], 0, n.channels, kept_with_x);
    write_slot<float>(slots[1], 0, n.channels, kept);
  }

  /// Four rows in float before their sum is added in double.
  template <Activation kind>
  static void add_gradients(const Normalized<T>& n, const T* gy, std::int64_t begin, std::int64_t end, double* g_sum,
                            double* gx_sum) {
    const std::int64_t width = n.channels;
    const auto centred = [&](std::int64_t at, std::int64_t c) { return to_float(n.x[at + c]) - n.mean[c]; };
    std::int64_t r = begin;
    for (; r + 4 <= end; r += 4) {
      const std::int64_t r0 = r * width, r1 = r0 + width, r2 = r1 + width, r3 = r2 + width;
#pragma omp simd
      for (std::int64_t c = 0; c < width; ++c) {
        const float g0 = gradient_at<kind>(n, gy, r0, c), g1 = gradient_at<kind>(n, gy, r1, c);
        const float g2 = gradient_at<kind>(n, gy, r2, c), g3 = gradient_at<kind>(n, gy, r3, c);
        g_sum[c] += static_cast<double>((g0 + g1) + (g2 + g3));
        gx_sum[c] += static_cast<double>((g0 * centred(r0, c) + g1 * centred(r1, c)) +
                                         (g2 * centred(r2, c) + g3 * centred(r3, c)));
      }
    }
    for (; r < end; ++r) {
#pragma omp simd
      for (std::int64_t c = 0; c < width; ++c) {
        const float g = gradient_at<kind>(n, gy, r * width, c);
        g_sum[c] += static_cast<double>(g);
        gx_sum[c] += static_cast<double>(g * centred(r * width, c));
      }
    }
  }

  void data_gradient(const OpArgs& a, const T* gy, const GradSlot& slot) const {
    const Normalized<T> n = normalized(a, true);
    T* gx = slot.grad.as<T>();  // may be gy
    const bool add = slot.write == Write::accumulate;
    float *offset = coefficients(a) + 2 * n.channels, *slope = offset + n.channels;
    const float *inverse = a.saved[1].as<float>(), *sums = a.saved[2].as<float>();
    const auto count = static_cast<float>(rows_.count);
    for (std::int64_t c = 0; c < n.channels; ++c) {
      offset[c] = n.scale[c] * (sums[c] / count);
      slope[c] = n.scale[c] * inverse[c] * (sums[n.channels + c] / count);
    }
    with_epilogue(activation_, [&](auto kind) {
      for_rows([&](std::int64_t row) {
        const std::int64_t at = row * n.channels;
        if (over_ranks_) {  // the moments are held here: their gradient goes its own way
          write_elements(gx + at, 0, n.channels, add,
                         [=](std::int64_t c) { return n.scale[c] * gradient_at<kind.value>(n, gy, at, c); });
        } else {
          write_elements(gx + at, 0, n.channels, add, [=](std::int64_t c) {
            const float g = gradient_at<kind.value>(n, gy, at, c);
            return (n.scale[c] * g - offset[c]) - (to_float(n.x[at + c]) - n.mean[c]) * slope[c];
          });
        }
      });
    });
  }

  /// Through mean = sum / count and variance = squares / count - mean^2; the count is no variable.
  void moments_gradient(const OpArgs& a, const GradSlot& slot) const {
    const float *weight = a.params[0].as<float>(), *inverses = a.saved[1].as<float>(), *sums = a.saved[2].as<float>();
    const auto* moments = a.in[1].as<double>();
    auto* to = slot.grad.as<double>();
    const std::int64_t channels = rows_.channels;
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

  Rows rows_;
  Activation activation_;
  double epsilon_;
  bool over_ranks_;
  int threads_;
};

template <class T>
class BatchMomentsKernel final : public Kernel {
 public:
  BatchMomentsKernel(const Shape& in, int threads) : rows_(in), threads_(threads) {}

  Needs needs() const override { return {rows_.sums_bytes(), 0}; }

  void forward(const OpArgs& a, Stream&) override {
    const T* x = a.in[0].as<T>();
    const std::int64_t channels = rows_.channels;
    const double* sums = sum_channels(rows_, threads_, a.workspace.data,
                                      [=](std::int64_t begin, std::int64_t end, double* sum, double* square) {
                                        add_moments(x + begin * channels, end - begin, channels, sum, square);
                                      });
    auto* to = a.out[0].as<double>();
    std::copy(sums, sums + 2 * channels, to);
    to[2 * channels] = static_cast<double>(rows_.count);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    if (g.in[0].write == Write::none) return;
    const T* x = a.in[0].as<T>();
    T* gx = g.in[0].grad.as<T>();
    const auto *of_sum = g.out[0].as<double>(), *of_square = of_sum + rows_.channels;
    const bool add = g.in[0].write == Write::accumulate;
    parallel_chunks(rows_.count, rows_.a_task, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const T* from = x + row * rows_.channels;
        write_elements(gx + row * rows_.channels, 0, rows_.channels, add, [=](std::int64_t c) {
          return static_cast<float>(of_sum[c] + 2.0 * static_cast<double>(to_float(from[c])) * of_square[c]);
        });
      }
    });
  }

 private:
  Rows rows_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make_batch_norm(const BatchNorm& op, std::span<const TensorDesc> in, int threads) {
  return make_for<BatchNormKernel>(in[0].dtype, op, in[0].shape, false, threads);
}
std::unique_ptr<Kernel> make_batch_normalize(const BatchNormalize& op, std::span<const TensorDesc> in, int threads) {
  return make_for<BatchNormKernel>(in[0].dtype, op, in[0].shape, true, threads);
}
std::unique_ptr<Kernel> make_batch_moments(std::span<const TensorDesc> in, int threads) {
  return make_for<BatchMomentsKernel>(in[0].dtype, in[0].shape, threads);
}

}  // namespace dtrain::cpu
