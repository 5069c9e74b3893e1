// Optimizers and learning-rate schedules as plain data; a device applies an UpdateRule to ranges of the flat buffers.
// The rule is constant over a run; everything that changes is in StepState. Optimizer state is flat f32, laid out like
// the parameters.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "runtime/device/step_state.hpp"
#include "runtime/optim/groups.hpp"
#include "runtime/optim/rules.hpp"
#include "runtime/tensor/dtype.hpp"

namespace dtrain {

struct FlatLayout;
struct FlatParam;
class UpdateLedger;

struct UpdateRule {
  std::variant<Sgd, Adam, AdamW, Lars, Lamb, Muon> kind;
  bool shard = false;  // ZeRO-1: each rank keeps the state of its shard of the parameters alone, and updates that
  std::vector<ParameterGroup> groups = {};  // what apply_groups() writes into a Graph; updates read the layout
};
/// True where an update needs whole parameters: their norms, or products of them. No range may cut through one then.
bool needs_whole_parameters(const UpdateRule&) noexcept;
/// 0, 1 (momentum) or 2 (moments) flat buffers of state.
int state_count(const UpdateRule&) noexcept;
/// "momentum"; "first_moment", "second_moment".
std::string state_name(const UpdateRule&, int index);
/// False where the state of this parameter in buffer `index` is not used, and no part of a checkpoint.
bool has_state(const FlatParam&, int index) noexcept;
double base_learning_rate(const UpdateRule&) noexcept;

/// A copy of a parameter that an update leaves as well, as a kernel computes with it: see PackedPart.
struct PackedCopy {
  void* to = nullptr;  // null: none; 16-byte aligned
  DType dtype = DType::f32;
  std::uint32_t channels = 1, pixels = 1;
  /// Does it lie otherwise than the parameter?
  bool swapped() const noexcept { return channels > 1 && pixels > 1; }
};

/// Range [begin, end) of the flat buffers, in floats. The layout says which parameters are spared from decay, and which
/// have a rate or a decay of their own.
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
  std::span<const PackedCopy> packed{};  // cuda: none, or one for each of FlatLayout::params; stays as it is over a run
  UpdateLedger* ledger = nullptr;        // cpu: what is read and written is added to it; null: none
  void* matrices = nullptr;              // matrix_scratch(layout) bytes of device memory, where that is any
};
/// Two for each norm block of each parameter, and one for each parameter.
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
  enum class Decay : std::uint8_t {
    constant,
    step,
    cosine,
    linear,
    polynomial,
    wsd,          // warm-up, stable, decay (Hu et al. 2024): constant up to the last decay_steps
    inverse_sqrt  // base * sqrt(w / (step + 1)) with w warm-up steps, or 1
  } decay = Decay::constant;
  std::int64_t warmup_steps = 0;  // linear from 0: step s has factor (s + 1) / warmup_steps; see reference_batch
  double final_factor = 0;        // cosine, linear, polynomial, wsd end here, at the last step
  double power = 2;               // polynomial
  std::int64_t every_steps = 0;   // step: multiply by factor each so many steps
  double factor = 0.1;            // step
  std::int64_t decay_steps = 0;   // wsd; 0: decay_fraction of all steps
  double decay_fraction = 0.2;    // wsd
  enum class Shape : std::uint8_t { linear, one_minus_sqrt } decay_shape = Shape::linear;  // wsd; Hägele et al. 2024
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
