// RunStatus: how far a run is, and what it last measured.
// A plain value, the same on all ranks; the trainer changes it, and reports and checkpoints are made of it.
#pragma once

#include <cstdint>
#include <optional>

#include "launch/report/run_files.hpp"
#include "runtime/optim/batch_schedule.hpp"

namespace dtrain::launch {

/// The best evaluation so far, by checkpoint.best.
struct BestEval {
  std::int64_t step = -1;
  double value = 0;  // its loss or accuracy
};

/// How long no evaluation has been better: see train.stop_after.
struct Patience {
  std::int64_t step = -1;   // of the best one; -1: there was none
  double best = 0;          // its loss or accuracy
  std::int64_t waited = 0;  // evaluations since
};

struct RunStatus {
  std::int64_t step = 0;        // steps done
  std::int64_t first_step = 0;  // steps that were done when this process began
  std::int64_t total_steps = 0;
  BatchSchedule batch;
  std::int64_t samples = 1;      // of the data set
  std::uint64_t applied = 0;     // updates done, by the optimizer of now
  std::uint64_t before = 0;      // by others, whose state was given up
  double loss = 0;               // of the latest step
  float loss_scale = 1;          // of the next step
  std::uint32_t good_steps = 0;  // updates in a row since a dynamic one was changed
  std::optional<EvalMetrics> eval;
  std::int64_t evaluated_step = -1;  // what `eval` is of
  std::optional<BestEval> best;
  Patience patience;

  /// Steps without an update, because a gradient was not finite at their loss scale.
  std::uint64_t skipped() const noexcept { return static_cast<std::uint64_t>(step) - before - applied; }
  bool finished() const noexcept { return step >= total_steps; }
  /// Samples that the steps so far took.
  std::int64_t taken() const noexcept { return batch.samples_before(step); }
  double epoch() const noexcept { return static_cast<double>(taken()) / static_cast<double>(samples); }
};

}  // namespace dtrain::launch
