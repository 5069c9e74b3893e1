// Optimizers and learning-rate schedules as plain data; a device applies an UpdateRule to ranges of the flat buffers.
// The rule is constant over a run; everything that changes is in StepState. Optimizer state is flat f32, laid out like
// the parameters.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>

#include "runtime/step_state.hpp"

namespace dtrain {

struct FlatLayout;

/// PyTorch's SGD: g += decay * w; m = momentum * m + g; g = nesterov ? g + momentum * m : m; w -= lr * g. Momentum
/// starts as g (m0 = 0).
struct Sgd {
  double learning_rate = 0.01, momentum = 0, weight_decay = 0;
  bool nesterov = false;
};
/// Kingma & Ba 2015; weight_decay is added to the gradient (L2).
struct Adam {
  double learning_rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
};
/// Loshchilov & Hutter 2019: w -= lr * weight_decay * w, then Adam.
struct AdamW {
  double learning_rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0.01;
};

/// You et al. 2017: the rate of each parameter is learning_rate * ratio, ratio = trust_coefficient * |w| / (|g| +
/// weight_decay * |w| + epsilon), or 1 where |w| or |g| is 0; then u = rate * (g + weight_decay * w), m = momentum * m
/// + u, w -= nesterov ? momentum * m + u : m. Parameters without decay (biases, norms) have ratio 1.
struct Lars {
  double learning_rate = 0.1, momentum = 0.9, weight_decay = 0.0001, trust_coefficient = 0.001, epsilon = 1e-9;
  bool nesterov = false;
};
/// You et al. 2020: u = Adam's direction (with bias correction) + weight_decay * w, w -= learning_rate * |w| / |u| * u;
/// the ratio is 1 where a norm is 0. Parameters without decay (biases, norms) have ratio 1: plain Adam.
struct Lamb {
  double learning_rate = 0.001, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-6, weight_decay = 0.01;
};

struct UpdateRule {
  std::variant<Sgd, Adam, AdamW, Lars, Lamb> kind;
  bool shard = false;  // ZeRO-1: each rank keeps the state of its share of the parameters alone, and updates that
};
/// True where an update needs norms of whole parameters, so that no range may cut through one.
bool needs_whole_parameters(const UpdateRule&) noexcept;
/// 0, 1 (momentum) or 2 (moments) flat buffers of state.
int state_count(const UpdateRule&) noexcept;
/// "momentum"; "first_moment", "second_moment".
std::string state_name(const UpdateRule&, int index);
double base_learning_rate(const UpdateRule&) noexcept;

/// Range [begin, end) of the flat buffers, in floats. The layout says which parameters are spared from decay.
struct UpdateArgs {
  float* params = nullptr;  // flat buffers from offset 0
  const float* gradients =
      nullptr;  // sums over the global batch: scaled here by gradient_scale / (sum_weight * loss_scale)
  float* state[2] = {nullptr, nullptr};
  std::size_t begin = 0, end = 0;
  const FlatLayout* layout = nullptr;
  const StepState* step = nullptr;
  double* norms = nullptr;      // norm_scratch(layout) doubles of device memory where needs_whole_parameters(rule)
  std::size_t state_begin = 0;  // state[i][0] is of this float of the flat buffers
};
std::size_t norm_scratch(const FlatLayout&) noexcept;

/// All kept states of a layout: values in the buffer of parameters, sums over StepState::micro_batches in that of
/// gradients.
struct StateUpdateArgs {
  float* params = nullptr;
  const float* gradients = nullptr;
  const FlatLayout* layout = nullptr;
  const StepState* step = nullptr;
};

struct Schedule {
  enum class Decay : std::uint8_t { constant, step, cosine, linear, polynomial } decay = Decay::constant;
  std::int64_t warmup_steps = 0;  // linear from 0: step s has factor (s + 1) / warmup_steps; see reference_batch
  double final_factor = 0;        // cosine, linear, polynomial end here, at the last step
  double power = 2;               // polynomial
  std::int64_t every_steps = 0;   // step: multiply by factor each so many steps
  double factor = 0.1;            // step
  /// > 0: the base rate is that of a batch of so many samples and grows linearly with the batch. Warm-up begins at the
  /// unscaled rate then (Goyal et al. 2017), or at 0 where the batch is not larger than the reference.
  std::int64_t reference_batch = 0;
};
/// Learning rate of step `step` (from 0) of a run of `total` steps with this global batch. Pure.
double learning_rate(const Schedule&, double unscaled, std::int64_t global_batch, std::int64_t step,
                     std::int64_t total);

struct Clipping {
  double max_norm = 0;  // 0: none
};

}  // namespace dtrain
