// Softmax and cross-entropy: sums over the positions of a micro batch.
#include <algorithm>
#include <limits>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/loss_sums.hpp"
#include "runtime/ops/softmax_row.hpp"

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

/// Adds e^(x - max) of the classes in [from, to), a multiple of `lanes`, to the sums of their lanes.
template <class T>
[[gnu::always_inline]] inline void add_exp(float* sums, const T* x, std::int64_t from, std::int64_t to, float max) {
  for (std::int64_t i = from; i < to; i += lanes)
    for (std::int64_t l = 0; l < lanes; ++l) sums[l] += exp_bounded(to_float(x[i + l]) - max);
}
/// The same of x[0, count) but x[without], at most `lanes` of them: one masked vector.
template <class T>
[[gnu::always_inline]] inline void add_exp_of(float* sums, const T* x, int count, int without, float max) {
  for (int l = 0; l < static_cast<int>(lanes); ++l) {
    const float v = l < count ? to_float(x[l]) : max;
    sums[l] += (l < count) & (l != without) ? exp_bounded(v - max) : 0.0f;
  }
}

/// Sum of e^(x - max) without that of the label, in an order that is fixed by n alone.
template <class T>
float row_exp_sum(const T* x, std::int64_t n, std::int64_t label, float max) {
  float sums[lanes] = {};
  const std::int64_t block = label - label % lanes, whole = n - n % lanes;
  add_exp(sums, x, 0, block, max);
  add_exp_of(sums, x + block, static_cast<int>(std::min(lanes, n - block)), static_cast<int>(label - block), max);
  if (block < whole) {
    add_exp(sums, x, block + lanes, whole, max);
    if (whole < n) add_exp_of(sums, x + whole, static_cast<int>(n - whole), -1, max);
  }
  for (std::int64_t half = lanes / 2; half > 0; half /= 2)
    for (std::int64_t l = 0; l < half; ++l) sums[l] += sums[l + half];
  return sums[0];
}

/// How many logits come before that of the label when they are sorted, equal ones in the order of the classes.
template <class T>
std::int64_t rank_of(const T* x, std::int64_t n, std::int64_t label) {
  const float own = to_float(x[label]);
  std::int32_t before = 0;  // as wide as a logit: twice as quick, and labels have no more bits
  for (std::int64_t c = 0; c < label; ++c) before += to_float(x[c]) >= own;
  for (std::int64_t c = label + 1; c < n; ++c) before += to_float(x[c]) > own;
  return before;
}

/// Sum of x - max.
template <class T>
double row_sum(const T* x, std::int64_t n, float max) {
  double sum = 0;
  for (std::int64_t c = 0; c < n; ++c) sum += static_cast<double>(to_float(x[c])) - static_cast<double>(max);
  return sum;
}

/// f(class) for all n, those that fill no vector as one that is masked: rows are short.
template <class F>
[[gnu::always_inline]] inline void each_class(std::int64_t n, F f) {
  std::int64_t i = 0;
  for (; i < n - n % lanes; ++i) f(i);
  const int left = static_cast<int>(n - i);
  for (int l = 0; l < static_cast<int>(lanes); ++l)
    if (l < left) f(i + l);
}

template <class T>
class SoftmaxCrossEntropyKernel final : public Kernel {
 public:
  SoftmaxCrossEntropyKernel(const SoftmaxCrossEntropy& op, Inputs in, int threads)
      : op_(op), sums_(in[0], in[2], threads), classes_(in[0].channels()) {}
  Needs needs() const override { return {loss_bytes(sums_.rows), 0}; }

  void forward(const OpArgs& a, Stream&) override {
    const RowLabels labels = labels_of(a);
    const RowWeights weights = sums_.weights(a);
    auto* saved = a.saved.empty() ? nullptr : a.saved[0].as<SoftmaxRow>();
    const T* const logits = a.in[0].as<T>();
    sums_.forward(a, [=, n = classes_, &op = op_](std::int64_t row) {
      RowLoss result;
      if (saved) saved[row] = {};
      const float weight = weights.of(row);
      if (weight == 0) return result;  // whatever its label is
      const std::int64_t label = labels.of(row);
      if (labels.ignored_of(label)) return result;
      result.weight = static_cast<double>(weight);
      result.positions = 1;
      if (label < 0 || label >= n) {
        result.loss = std::numeric_limits<double>::quiet_NaN();
        return result;
      }
      const T* x = logits + row * n;
      const float own = to_float(x[label]), max = row_max(x, n);
      const SoftmaxRow softmax{max, row_exp_sum(x, n, label, max), own};
      if (saved) saved[row] = softmax;
      const double mean = op.label_smoothing > 0 ? row_sum(x, n, max) / static_cast<double>(n) : 0;
      result.loss = static_cast<double>(weight) * softmax.loss(op.label_smoothing, mean, op.z_loss);
      const std::int64_t rank = own == own ? rank_of(x, n, label) : n;
      if (rank < 1) result.correct = 1;
      if (rank < 5) result.top5 = 1;
      return result;
    });
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    if (!wanted(g.in[0])) return;
    const RowLabels labels = labels_of(a);
    const RowWeights weights = sums_.weights(a);
    const auto* saved = a.saved[0].as<const SoftmaxRow>();
    const float seed = a.step.loss_scale * a.step.loss_seed[a.loss];
    const bool add = g.in[0].write == Write::accumulate;
    const T* const logits = a.in[0].as<T>();
    T* const gradient = g.in[0].grad.as<T>();
    sums_.each_row([=, n = classes_, &op = op_](std::int64_t row) {
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
      const float w = known ? weight * seed : std::numeric_limits<float>::quiet_NaN();
      const float before = known && add ? to_float(gx[label]) : 0.0f;
      const SoftmaxGradient g_row = saved[row].gradient(w, op.label_smoothing, op.z_loss, n);
      const float max = saved[row].max, scale = g_row.scale, shift = g_row.shift;
      const auto of_class = [=](float v) { return scale * exp_bounded(v - max) - shift; };
      if (add) {
        each_class(n, [=](std::int64_t c) { gx[c] = from_float<T>(to_float(gx[c]) + of_class(to_float(x[c]))); });
      } else if (gx == x) {  // one pointer, so that the loop fills vectors
        each_class(n, [=](std::int64_t c) { gx[c] = from_float<T>(of_class(to_float(gx[c]))); });
      } else {
        each_class(n, [=](std::int64_t c) { gx[c] = from_float<T>(of_class(to_float(x[c]))); });
      }
      if (known) gx[label] = from_float<T>(before + g_row.label);
    });
  }

 private:
  RowLabels labels_of(const OpArgs& a) const {
    return {a.in[1].data, a.in[1].desc.dtype, op_.ignore.has_value(), op_.ignore.value_or(0)};
  }
  SoftmaxCrossEntropy op_;
  LossSums sums_;
  std::int64_t classes_;
};

}  // namespace

std::unique_ptr<Kernel> make(const SoftmaxCrossEntropy& op, Inputs in, int threads) {
  return make_for<SoftmaxCrossEntropyKernel>(in[0].dtype, op, in, threads);
}

}  // namespace dtrain::cpu
