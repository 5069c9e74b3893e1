// Bodies of the losses: a group of threads, a warp or a block, a sample; then one block adds the samples in a fixed
// order. Structs of arguments; see grid.hpp.
#pragma once

#include <cmath>

#include "runtime/cuda/vector.hpp"
#include "runtime/ops/activation_math.hpp"

namespace dtrain::cuda {

/// What a sample gives to LossSum.
struct SampleLoss {
  double loss, weight, correct, top5;
};

DTRAIN_HOST_DEVICE inline float not_a_number() {
  return std::bit_cast<float>(0x7FC00000u);
}

/// Samples are dealt to groups of `group` threads.
template <int size>
struct SampleGroup {
  static constexpr int group = size, threads = block_threads, groups = threads / group;
  using Shared = GroupShared<group>;
  static_assert(group == static_cast<int>(warp_size) || group == threads);
};

template <int size>
struct CrossEntropyBody : SampleGroup<size> {
  using typename SampleGroup<size>::Shared;
  CrossEntropyPlace p;
  SampleLoss* losses;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    const std::int64_t s = t.block() * this->groups + t.index() / size, first = t.index() % size;
    if (s >= p.samples) return;  // a whole warp or block
    const float weight = p.weights[s];
    SampleLoss result{0, 0, 0, 0};
    if (weight == 0) {
      if (first == 0) keep(s, 0, result);
      return;
    }
    const float* x = p.logits + s * p.classes;
    const std::int64_t label = p.labels[s];
    const bool known = label >= 0 && label < p.classes;
    const float own = known ? x[label] : 0.0f;
    float largest = x[0];
    for (std::int64_t c = first; c < p.classes; c += size) largest = x[c] > largest ? x[c] : largest;
    largest = group_max<size>(t, shared, largest);
    float exponentials = 0, logits = 0;
    int before = 0;  // classes that come before the label when logits are sorted, equal ones in their order
    for (std::int64_t c = first; c < p.classes; c += size) {
      const float v = x[c];
      exponentials += exp_bounded(v - largest);
      logits += v;
      before += c < label ? v >= own : c > label ? v > own : 0;
    }
    const float log_sum = largest + std::log(group_sum<size>(t, shared, exponentials));
    before = group_sum<size>(t, shared, before);
    double aim = (1.0 - p.smoothing) * static_cast<double>(own);
    if (p.smoothing > 0)
      aim += p.smoothing * group_sum<size>(t, shared, static_cast<double>(logits)) / static_cast<double>(p.classes);
    if (first != 0) return;
    result.weight = static_cast<double>(weight);
    result.loss = known ? static_cast<double>(weight) * (static_cast<double>(log_sum) - aim)
                        : static_cast<double>(not_a_number());
    if (known && own == own) {
      result.correct = before < 1 ? 1 : 0;
      result.top5 = before < 5 ? 1 : 0;
    }
    keep(s, log_sum, result);
  }
  DTRAIN_HOST_DEVICE void keep(std::int64_t s, float log_sum, const SampleLoss& result) const {
    if (p.log_sums != nullptr) p.log_sums[s] = log_sum;
    losses[s] = result;
  }
};

template <int size>
struct CrossEntropyGradientBody : SampleGroup<size> {
  using Shared = Nothing;
  CrossEntropyPlace p;
  const StepState* step;
  Slot gradient;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared&) const {
    const std::int64_t s = t.block() * this->groups + t.index() / size, first = t.index() % size;
    if (s >= p.samples) return;
    const float* x = p.logits + s * p.classes;
    const float weight = p.weights[s], log_sum = p.log_sums[s];
    const std::int64_t label = p.labels[s];
    const bool known = label >= 0 && label < p.classes;
    const float w = known ? weight * step->loss_scale : not_a_number();
    const auto share = static_cast<float>(p.smoothing / static_cast<double>(p.classes));
    const auto aim = static_cast<float>(1.0 - p.smoothing + p.smoothing / static_cast<double>(p.classes));
    for (std::int64_t c = first; c < p.classes; c += size) {
      const float g = weight == 0 ? 0.0f : w * (exp_bounded(x[c] - log_sum) - (c == label ? aim : share));
      write_slot<1, float>(gradient, s * p.classes + c, Floats<1>{{g}});
    }
  }
};

template <int size>
struct SquaredErrorBody : SampleGroup<size> {
  using typename SampleGroup<size>::Shared;
  SquaredErrorPlace p;
  SampleLoss* losses;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    const std::int64_t s = t.block() * this->groups + t.index() / size, first = t.index() % size;
    if (s >= p.samples) return;
    const float weight = p.weights[s];
    double sum = 0;
    if (weight != 0) {
      for (std::int64_t i = s * p.values + first; i < (s + 1) * p.values; i += size) {
        const auto d = static_cast<double>(p.prediction[i] - p.target[i]);
        sum += d * d;
      }
      sum = group_sum<size>(t, shared, sum);
    }
    if (first != 0) return;
    const auto w = static_cast<double>(weight);
    losses[s] = {weight == 0 ? 0 : w * sum / static_cast<double>(p.values), w, 0, 0};
  }
};

template <int size>
struct SquaredErrorGradientBody : SampleGroup<size> {
  using Shared = Nothing;
  SquaredErrorPlace p;
  const StepState* step;
  Slot gradient;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared&) const {
    const std::int64_t s = t.block() * this->groups + t.index() / size, first = t.index() % size;
    if (s >= p.samples) return;
    const float weight = p.weights[s], factor = 2.0f * (weight * step->loss_scale) / static_cast<float>(p.values);
    for (std::int64_t i = s * p.values + first; i < (s + 1) * p.values; i += size) {
      const float g = weight == 0 ? 0.0f : factor * (p.prediction[i] - p.target[i]);
      write_slot<1, float>(gradient, i, Floats<1>{{g}});
    }
  }
};

/// One block.
struct LossSumsBody {
  static constexpr int threads = block_threads;
  using Shared = GroupShared<threads>;
  std::int64_t samples;
  const SampleLoss* losses;
  bool add;
  float* out;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    SampleLoss sum{0, 0, 0, 0};
    for (std::int64_t s = t.index(); s < samples; s += threads) {
      sum.loss += losses[s].loss;
      sum.weight += losses[s].weight;
      sum.correct += losses[s].correct;
      sum.top5 += losses[s].top5;
    }
    const double values[4] = {group_sum<threads>(t, shared, sum.loss), group_sum<threads>(t, shared, sum.weight),
                              group_sum<threads>(t, shared, sum.correct), group_sum<threads>(t, shared, sum.top5)};
    if (t.index() == 0)
      for (int i = 0; i < 4; ++i) out[i] = add ? out[i] + static_cast<float>(values[i]) : static_cast<float>(values[i]);
  }
};

}  // namespace dtrain::cuda
