// TrainStep: one update of the parameters from the global batch: forward and backward of each micro batch, the sum over
// micro batches and ranks, the optimizer.
// Owns optimizer, moving average, reducer and what the host sees of the model; runs on the training thread of each
// rank.
#pragma once

#include <cstdint>
#include <fstream>
#include <optional>
#include <string>
#include <utility>

#include "comm/reducer.hpp"
#include "comm/watchdog.hpp"
#include "io/loader.hpp"
#include "launch/config.hpp"
#include "launch/engine.hpp"
#include "launch/model_state.hpp"
#include "launch/run_files.hpp"
#include "launch/run_status.hpp"
#include "launch/signals.hpp"
#include "runtime/average.hpp"
#include "runtime/micro_batch_tree.hpp"
#include "runtime/step_state.hpp"
#include "runtime/trace.hpp"
#include "runtime/update.hpp"

namespace dtrain::launch {

class TrainStep {
 public:
  /// `accumulation`: micro batches a step.
  TrainStep(const RunConfig&, Engine&, Collective&, comm::Watchdog&, StopSignals&, std::int64_t accumulation);

  ModelState& model() noexcept { return model_; }
  /// The parameters of the latest step are there, before anything but the next step reads them: sharded, they are on
  /// their way until then. Throws RankFailure.
  void settle();
  /// The first parameter, in the sums over all ranks, with a gradient that is not finite; collective. Throws
  /// RankFailure.
  std::string first_nonfinite_gradient();
  /// Null where the configuration has none.
  ParameterAverage* average() noexcept { return average_ ? &*average_ : nullptr; }
  /// Of the latest step: its learning rate, and the gradient norm where that was asked for.
  const StepState& state() const noexcept { return state_; }
  /// Writes which samples this rank takes to this file from now on; see open_sample_log().
  void log_samples(std::ofstream log) { sample_log_ = std::move(log); }

  /// Where to note what the next steps do; null: nowhere.
  void trace(Trace* trace) noexcept { trace_ = trace; }

  /// The step that `status` stands before: counts its update, sets the loss (the caller counts the step), adds to
  /// `seconds`. `logged`: the gradient norm is wanted. True where some rank was asked to stop: known to all, because
  /// the wish travels with the gradients. Throws RankFailure.
  bool run(RunStatus&, io::Loader&, bool logged, PhaseSeconds& seconds);

 private:
  void load(io::Loader&, int slot, std::int64_t step);
  void update(bool logged);
  void wait(int bucket);
  void note(Activity, double begin, double end, int bucket = -1);
  void note_buckets();
  /// The norm of the mean gradient, before clipping.
  double gradient_norm();

  const RunConfig& config_;
  Engine& engine_;
  comm::Watchdog& watchdog_;
  StopSignals& stop_;
  Optimizer optimizer_;
  std::optional<ParameterAverage> average_;
  ModelState model_;
  comm::GradientReducer reducer_;
  const int ranks_;
  std::int64_t accumulation_;
  std::optional<MicroBatchTree> tree_;  // where bits must not depend on the number of ranks
  StepState state_;
  std::ofstream sample_log_;
  Trace* trace_ = nullptr;
};

}  // namespace dtrain::launch
