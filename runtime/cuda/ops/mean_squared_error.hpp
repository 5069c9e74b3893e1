// Mean squared error: what its kernels are given, and their bodies. Structs of arguments; see grid.hpp.
// Pointers are device memory that the caller owns until the stream was there.
#pragma once

#include "runtime/cuda/ops/loss_sums.hpp"

namespace dtrain::cuda {

struct SquaredErrorPlace {
  Matrix shape;
  const void* prediction;
  const float* target;
  RowWeights weights;
};
/// Workspace: loss_bytes(rows). Sums are written to out[loss_sum_count], or added to it.
void squared_error(const Launch&, Element, const SquaredErrorPlace&, bool add, float* out, void* workspace);
/// `loss`: index of its seed.
void squared_error_gradient(const Launch&, Element, const SquaredErrorPlace&, const StepState*, int loss,
                            Slot gradient);

template <class T, int size>
struct SquaredErrorBody : RowGroup<size> {
  using Shared = GroupShared<size>;
  SquaredErrorPlace p;
  std::int64_t parts;
  RowLoss* losses;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    const std::int64_t part = this->index(t), first = this->lane(t);
    if (part >= parts) return;
    const T* prediction = static_cast<const T*>(p.prediction);
    RowLoss all;
    for (std::int64_t row = part; row < p.shape.rows; row += parts) {
      const float weight = p.weights.of(row);
      if (weight == 0) continue;
      double sum = 0;
      for (std::int64_t i = row * p.shape.channels + first; i < (row + 1) * p.shape.channels; i += size) {
        const auto d = static_cast<double>(to_float(prediction[i]) - p.target[i]);
        sum += d * d;
      }
      sum = group_sum<size>(t, shared, sum);
      const auto w = static_cast<double>(weight);
      all.add({w * sum / static_cast<double>(p.shape.channels), w, 0, 0, 1});
    }
    if (first == 0) losses[part] = all;
  }
};

template <class T, int size>
struct SquaredErrorGradientBody : RowGroup<size> {
  using Shared = Nothing;
  SquaredErrorPlace p;
  const StepState* step;
  int loss;
  Slot gradient;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared&) const {
    const std::int64_t row = this->index(t), first = this->lane(t);
    if (row >= p.shape.rows) return;
    const T* prediction = static_cast<const T*>(p.prediction);
    const float weight = p.weights.of(row), seed = step->loss_scale * step->loss_seed[loss];
    const float factor = 2.0f * (weight * seed) / static_cast<float>(p.shape.channels);
    for (std::int64_t i = row * p.shape.channels + first; i < (row + 1) * p.shape.channels; i += size) {
      const float g = weight == 0 ? 0.0f : factor * (to_float(prediction[i]) - p.target[i]);
      write_slot<1, T>(gradient, i, Floats<1>{{g}});
    }
  }
};

}  // namespace dtrain::cuda
