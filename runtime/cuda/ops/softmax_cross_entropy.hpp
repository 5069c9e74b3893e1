// Softmax and cross-entropy: what its kernels are given, and their bodies. Structs of arguments; see grid.hpp.
// Pointers are device memory that the caller owns until the stream was there.
#pragma once

#include <bit>

#include "runtime/cuda/ops/loss_sums.hpp"
#include "runtime/ops/softmax_row.hpp"

namespace dtrain::cuda {

struct CrossEntropyPlace {
  Matrix shape;
  double smoothing, z_loss;
  const void* logits;
  RowLabels labels;
  RowWeights weights;
  SoftmaxRow* saved;  // or null
};
/// Workspace: loss_bytes(rows). Sums are written to out[loss_sum_count], or added to it.
void cross_entropy(const Launch&, Element, const CrossEntropyPlace&, bool add, float* out, void* workspace);
/// `loss`: index of its seed.
void cross_entropy_gradient(const Launch&, Element, const CrossEntropyPlace&, const StepState*, int loss,
                            Slot gradient);

DTRAIN_HOST_DEVICE inline float not_a_number() {
  return std::bit_cast<float>(0x7FC00000u);
}

template <class T, int size>
struct CrossEntropyBody : RowGroup<size> {
  using Shared = GroupShared<size>;
  CrossEntropyPlace p;
  std::int64_t parts;
  RowLoss* losses;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    const std::int64_t part = this->index(t);
    if (part >= parts) return;  // a whole warp or block
    RowLoss sum;
    for (std::int64_t row = part; row < p.shape.rows; row += parts) add_row(t, shared, row, sum);
    if (this->lane(t) == 0) losses[part] = sum;
  }

  template <class Thread>
  DTRAIN_HOST_DEVICE void add_row(Thread& t, Shared& shared, std::int64_t row, RowLoss& sum) const {
    const std::int64_t first = this->lane(t);
    const float weight = p.weights.of(row);
    const std::int64_t label = p.labels.of(row);
    if (weight == 0 || p.labels.ignored_of(label)) {
      if (first == 0) keep(row, {});
      return;
    }
    const T* x = static_cast<const T*>(p.logits) + row * p.shape.channels;
    const bool known = label >= 0 && label < p.shape.channels;
    const float own = known ? to_float(x[label]) : 0.0f;
    float largest = to_float(x[0]);
    for (std::int64_t c = first; c < p.shape.channels; c += size) {
      const float v = to_float(x[c]);
      largest = v > largest ? v : largest;
    }
    largest = group_max<size>(t, shared, largest);
    float others = 0, distances = 0;
    int before = 0;  // classes that come before the label when logits are sorted, equal ones in their order
    for (std::int64_t c = first; c < p.shape.channels; c += size) {
      const float v = to_float(x[c]), distance = v - largest;
      others += c == label ? 0.0f : exp_bounded(distance);
      distances += distance;
      before += c < label ? v >= own : c > label ? v > own : 0;
    }
    const SoftmaxRow softmax{largest, group_sum<size>(t, shared, others), own};
    before = group_sum<size>(t, shared, before);
    double mean = 0;
    if (p.smoothing > 0)
      mean = group_sum<size>(t, shared, static_cast<double>(distances)) / static_cast<double>(p.shape.channels);
    if (first != 0) return;
    RowLoss result;
    result.weight = static_cast<double>(weight);
    result.positions = 1;
    result.loss = known ? static_cast<double>(weight) * softmax.loss(p.smoothing, mean, p.z_loss)
                        : static_cast<double>(not_a_number());
    if (known && own == own) {
      result.correct = before < 1 ? 1 : 0;
      result.top5 = before < 5 ? 1 : 0;
    }
    keep(row, softmax);
    sum.add(result);
  }
  DTRAIN_HOST_DEVICE void keep(std::int64_t row, const SoftmaxRow& softmax) const {
    if (p.saved != nullptr) p.saved[row] = softmax;
  }
};

template <class T, int size>
struct CrossEntropyGradientBody : RowGroup<size> {
  using Shared = Nothing;
  CrossEntropyPlace p;
  const StepState* step;
  int loss;
  Slot gradient;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared&) const {
    const std::int64_t row = this->index(t);
    if (row >= p.shape.rows) return;
    const T* x = static_cast<const T*>(p.logits) + row * p.shape.channels;
    const float weight = p.weights.of(row);
    const SoftmaxRow softmax = p.saved[row];
    const std::int64_t label = p.labels.of(row);
    const bool skipped = weight == 0 || p.labels.ignored_of(label), known = label >= 0 && label < p.shape.channels;
    const float w = known ? weight * (step->loss_scale * step->loss_seed[loss]) : not_a_number();
    const SoftmaxGradient g_row = softmax.gradient(w, p.smoothing, p.z_loss, p.shape.channels);
    for (std::int64_t c = this->lane(t); c < p.shape.channels; c += size) {
      const float of_class = g_row.scale * exp_bounded(to_float(x[c]) - softmax.max) - g_row.shift;
      const float g = skipped ? 0.0f : c == label ? g_row.label : of_class;
      write_slot<1, T>(gradient, row * p.shape.channels + c, Floats<1>{{g}});
    }
  }
};

}  // namespace dtrain::cuda
