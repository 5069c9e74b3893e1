// TrainStep: one update of the parameters from the global batch: forward and backward of each micro batch, the sum over
// micro batches and ranks, the optimizer.
// Owns optimizer, moving average, reducer and what the host sees of the model; runs on the training thread of each
// rank. An asynchronous device is given steps ahead, and what they came to is read some steps later.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comm/collective/reducer.hpp"
#include "comm/watch/watchdog.hpp"
#include "io/dataset/loader.hpp"
#include "launch/base/signals.hpp"
#include "launch/config/config.hpp"
#include "launch/data/data_check.hpp"
#include "launch/report/run_files.hpp"
#include "launch/report/run_status.hpp"
#include "launch/report/step_timers.hpp"
#include "launch/train/engine.hpp"
#include "launch/train/model_state.hpp"
#include "runtime/device/cuda_graph_cache.hpp"
#include "runtime/optim/average.hpp"
#include "runtime/optim/update.hpp"
#include "runtime/program/micro_batch_tree.hpp"
#include "runtime/program/step_memory.hpp"
#include "runtime/ranks/trace.hpp"

namespace dtrain::launch {

class TrainStep {
 public:
  /// `accumulation`: micro batches of the largest step. The engine is connected and bound.
  TrainStep(const RunConfig&, Engine&, comm::Watchdog&, StopSignals&, std::int64_t accumulation);

  /// Steps may be under way.
  ~TrainStep() {
    watchdog_.follow(nullptr);
    engine_.quiet();
  }
  TrainStep(const TrainStep&) = delete;
  TrainStep& operator=(const TrainStep&) = delete;

  ModelState& model() noexcept { return model_; }
  /// The parameters of the latest step are there, before anything but the next step reads them: sharded, they are on
  /// their way until then. All ranks call it together. Throws RankFailure.
  void settle();
  /// The first parameter, in the sums over all ranks, with a gradient that is not finite in this step, as far as that
  /// can still be known; collective. Throws RankFailure.
  std::string first_nonfinite_gradient(const StepState& done);
  /// Is told of each batch from now on; outlives this.
  void check_data(DataCheck& check) noexcept { data_check_ = &check; }
  /// Null where the configuration has none.
  ParameterAverage* average() noexcept { return average_ ? &*average_ : nullptr; }
  /// Writes which samples this rank takes to this file from now on; see open_sample_log().
  void log_samples(AppendFile log) { sample_log_.emplace(std::move(log)); }

  /// Where to note what the next steps do; null: nowhere. On an asynchronous device spans are noted when the step's
  /// results are read, and such steps are not replayed.
  void trace(Trace* trace) noexcept { trace_ = trace; }
  /// How far the device's clock in those spans may be from the host's.
  double clock_error() const noexcept { return timers_.clock_error(); }

  /// This GPU's energy and the samples it was spent on, for the sums of the next step.
  void spend(const Energy& energy) noexcept { spent_ = energy; }
  /// What the sums over all ranks took since it was cleared.
  CommunicationSeconds& communication() noexcept { return communication_; }

  /// The run begins or goes on at `status`. `weights`: of its next step over all ranks, by counted loss: see
  /// sum_weights.
  void start(const RunStatus& status, std::span<const double> weights = {});
  /// How the losses of a step are put together.
  const LossRule& losses() const noexcept { return losses_; }
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
  /// True where some rank was asked to stop: known to all, because the request travels with the gradients.
  static bool stop_requested(const StepState& done) noexcept { return done.tail.stop > 0; }
  /// The energy that all ranks told of in this step.
  static Energy energy_of(const StepState& done) noexcept {
    return {static_cast<double>(done.tail.joules), static_cast<double>(done.tail.joules_samples)};
  }
  /// Why steps are not replayed although that was asked for; empty where there is nothing to say.
  const std::string& no_graphs_because() const noexcept { return graph_cache_.refusal(); }

 private:
  void begin_step(const RunStatus&, std::int64_t micro_batches);
  void load(io::Loader&, const DeviceData*, int slot, std::int64_t step);
  void update(const RunStatus&, bool logged, PhaseSeconds&);
  void gather_first();
  void wait(int bucket);
  void put_tail(bool last);
  void take_weights(const io::Loader&, const io::Batch&);
  void beat(std::int64_t step, const char* phase);
  void note(Activity, double begin, double end, int bucket = -1);
  void note_buckets();
  void count_buckets(std::span<const comm::BucketTiming>);
  void count_passes(PhaseSeconds&);
  std::uint64_t key(const Pass&, int slot, std::int64_t micro_batch) const;
  StepHooks& hooks() { return tree_ ? static_cast<StepHooks&>(*tree_) : reducer_; }
  /// Sums of the losses, and the StepTail.
  float* behind_gradients() const noexcept;

  const RunConfig& config_;
  Engine& engine_;
  comm::Watchdog& watchdog_;
  StopSignals& stop_;
  Optimizer optimizer_;
  std::optional<ParameterAverage> average_;
  ModelState model_;
  // What sums on their way may still touch is there for longer than they are.
  StepMemory memory_;
  StepTimers timers_;
  comm::GradientReducer reducer_;
  const int ranks_;
  const bool gathers_first_;
  const std::int64_t accumulation_;
  LossScaling scaling_;
  std::optional<MicroBatchTree> tree_;  // where bits must not depend on the number of ranks
  CudaGraphCache graph_cache_;
  std::int64_t step_ = 0;                           // that was begun last
  std::int64_t first_step_ = 0, reading_step_ = 0;  // of this run; that is read next
  std::optional<AppendFile> sample_log_;
  DataCheck* data_check_ = nullptr;
  Trace* trace_ = nullptr;
  Energy spent_;
  const LossRule losses_;
  const std::size_t counted_;                             // losses
  std::array<std::uint64_t, max_losses> next_weights_{};  // of the step after this one, of this rank, by counted loss
  CommunicationSeconds communication_;
  /// Where this rank's sums are, for whoever looks at a run that hangs.
  struct Place final : comm::DeviceWatch {
    explicit Place(const TrainStep& s) : step(s) {}
    comm::DeviceNote look() noexcept override;
    const TrainStep& step;
  } place_{*this};
};

/// What start() wants, of what each rank counted in units (see weight_units); collective.
std::vector<double> sum_weights(Group&, std::span<const std::uint64_t> mine);

}  // namespace dtrain::launch
