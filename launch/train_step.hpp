// TrainStep: one update of the parameters from the global batch: forward and backward of each micro batch, the sum over
// micro batches and ranks, the optimizer.
// Owns optimizer, moving average, reducer and what the host sees of the model; runs on the training thread of each
// rank. An asynchronous device is given steps ahead, and what they came to is read some steps later.
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
#include "launch/step_timers.hpp"
#include "runtime/average.hpp"
#include "runtime/micro_batch_tree.hpp"
#include "runtime/recordings.hpp"
#include "runtime/step_memory.hpp"
#include "runtime/trace.hpp"
#include "runtime/update.hpp"

namespace dtrain::launch {

class TrainStep {
 public:
  /// `accumulation`: micro batches a step.
  TrainStep(const RunConfig&, Engine&, Collective&, comm::Watchdog&, StopSignals&, std::int64_t accumulation);

  /// Steps may be under way.
  ~TrainStep() { engine_.quiet(); }
  TrainStep(const TrainStep&) = delete;
  TrainStep& operator=(const TrainStep&) = delete;

  ModelState& model() noexcept { return model_; }
  /// The parameters of the latest step are there, before anything but the next step reads them: sharded, they are on
  /// their way until then. Throws RankFailure.
  void settle();
  /// The first parameter, in the sums over all ranks, with a gradient that is not finite in this step, as far as that
  /// can still be known; collective. Throws RankFailure.
  std::string first_nonfinite_gradient(const StepState& done);
  /// Null where the configuration has none.
  ParameterAverage* average() noexcept { return average_ ? &*average_ : nullptr; }
  /// Writes which samples this rank takes to this file from now on; see open_sample_log().
  void log_samples(std::ofstream log) { sample_log_ = std::move(log); }

  /// Where to note what the next steps do; null: nowhere.
  void trace(Trace* trace) noexcept { trace_ = trace; }

  /// The run begins or goes on at `status`.
  void start(const RunStatus& status);
  /// Gives the device the step that `status` stands before; adds to `seconds`. `logged`: the gradient norm is wanted.
  /// Throws RankFailure.
  void run(const RunStatus& status, io::Loader&, const DeviceData*, bool logged, PhaseSeconds& seconds);
  /// Steps whose results were not read yet, and how many of them are left unread while the run goes on: 0 on a cpu.
  int under_way() const noexcept { return memory_.under_way(); }
  int lag() const noexcept { return memory_.lag(); }
  /// What the oldest of them came to: sums over the global batch, norm, updates so far; waits for it. Valid until the
  /// next step. Throws RankFailure.
  const StepState& read(PhaseSeconds& seconds);
  /// What passes are given: device memory.
  const StepState& state() noexcept { return memory_.state(); }
  /// True where some rank was asked to stop: known to all, because the wish travels with the gradients.
  static bool stop_wished(const StepState& done) noexcept { return done.sums[ModelState::stop_sum] > 0; }
  /// Why steps are not replayed although that was asked for; empty where there is nothing to say.
  const std::string& no_graphs_because() const noexcept { return recordings_.refusal(); }

 private:
  void begin_step(const RunStatus&);
  void load(io::Loader&, const DeviceData*, int slot, std::int64_t step);
  void update(const RunStatus&, bool logged, PhaseSeconds&);
  void wait(int bucket);
  void wish_to_stop(bool);
  void beat(const RunStatus&, const char* phase);
  void note(Activity, double begin, double end, int bucket = -1);
  void note_buckets();
  void count_passes(PhaseSeconds&);
  std::uint64_t key(const Pass&, int slot, std::int64_t micro_batch, bool timed) const;
  StepHooks& hooks() { return tree_ ? static_cast<StepHooks&>(*tree_) : reducer_; }
  /// StepState::sum_count floats: LossSums and the wishes to stop.
  float* behind_gradients() const noexcept;

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
  LossScaling scaling_;
  std::optional<MicroBatchTree> tree_;  // where bits must not depend on the number of ranks
  StepMemory memory_;
  Recordings recordings_;
  StepTimers timers_;
  std::int64_t step_ = 0;  // that was begun last
  std::ofstream sample_log_;
  Trace* trace_ = nullptr;
};

}  // namespace dtrain::launch
