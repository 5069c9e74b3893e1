// BatchSchedule: how many samples each step takes, and so which step takes a sample: a pure function of the settings.
// A value; copies share an immutable table, so that copying one allocates nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace dtrain {

/// Batch-size warm-up, as Megatron's rampup-batch-size: the global batch grows in equal steps.
struct BatchWarmup {
  std::int64_t from = 0;       // samples of the first update; 0: no warm-up
  std::int64_t increment = 0;  // 0: as `from`
  std::int64_t samples = 0;    // over which it grows; each size but the last takes an equal part of them
  std::int64_t step_size() const noexcept { return increment > 0 ? increment : from; }
  friend bool operator==(const BatchWarmup&, const BatchWarmup&) = default;
};

class BatchSchedule {
 public:
  /// Steps from `step` on take `batch` samples each; `samples` were taken before.
  struct Stage {
    std::int64_t step = 0, samples = 0, batch = 1;
  };

  /// The warm-up leads to `global`: see config_checks. Implicit: a number is a batch that is always the same.
  BatchSchedule(std::int64_t global = 1, const BatchWarmup& = {});  // NOLINT(google-explicit-constructor)

  std::int64_t batch(std::int64_t step) const noexcept { return stage_of(step).batch; }
  /// All that the steps before this one take: the stream position of its first sample.
  std::int64_t samples_before(std::int64_t step) const noexcept {
    const Stage& s = stage_of(step);
    return s.samples + (step - s.step) * s.batch;
  }
  /// The step that takes the sample at this position of the stream.
  std::int64_t step_at(std::int64_t position) const noexcept;
  /// How many steps it takes until so many samples were taken.
  std::int64_t steps_for(std::int64_t samples) const noexcept { return samples > 0 ? step_at(samples - 1) + 1 : 0; }
  bool constant() const noexcept { return stages_->size() == 1; }
  /// In order; the first one begins at step 0, and the last one never ends.
  std::span<const Stage> stages() const noexcept { return *stages_; }
  std::int64_t largest() const noexcept { return stages_->back().batch; }
  /// The greatest number of which all batches are multiples.
  std::int64_t unit() const noexcept;

 private:
  const Stage& stage_of(std::int64_t step) const noexcept;
  std::shared_ptr<const std::vector<Stage>> stages_;
};

}  // namespace dtrain
