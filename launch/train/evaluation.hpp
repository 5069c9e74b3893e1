// Evaluator: the losses and accuracy of a model over a whole data set, shared by all ranks.
// Collective, on the thread that owns Engine and Group; owns the sums it reads, and borrows everything else.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/watch/watchdog.hpp"
#include "io/dataset/loader.hpp"
#include "launch/base/signals.hpp"
#include "launch/report/run_files.hpp"
#include "launch/train/engine.hpp"
#include "launch/train/judge.hpp"
#include "runtime/device/cuda_graph_cache.hpp"
#include "runtime/device/host_mirror.hpp"
#include "runtime/optim/average.hpp"
#include "runtime/program/step_memory.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::launch {

struct EvaluatorOptions {
  bool graphs = false;               // passes may be recorded
  const DeviceData* data = nullptr;  // what the loader reads for, see Feed
  double token_bytes = 0;            // of the text that a token of the set stands for, on average; 0: not known
  JudgeScope scope = JudgeScope::samples;
  std::span<const io::Description> names = {};  // of classes
  std::span<const io::PortOptions> ports = {};  // of the loader: errors are in the units of stored targets
  std::uint64_t samples = 0;                    // of the set
};

class Evaluator {
 public:
  Evaluator(Engine&, io::Loader&, Group&, comm::Watchdog&, const EvaluatorOptions&);

  /// Each sample of the set once; the same bits on any number of ranks where micro batches are of one size. With
  /// `average` its values take the parameters' place meanwhile. `step`: for the watchdog. Nothing where some rank was
  /// asked to stop, which is asked now and then: a scheduler does not wait for a long evaluation. Without `stop` it is
  /// always finished. Throws RankFailure, and on all ranks DataError, after which the parameters may still be saved.
  std::optional<EvalMetrics> run(std::int64_t step, StopSignals* stop, ParameterAverage* average = nullptr);
  /// Why passes are not replayed although that was asked for; empty where there is nothing to say.
  const std::string& no_graphs_because() const noexcept { return graph_cache_.refusal(); }

 private:
  std::optional<EvalMetrics> run_packed(std::int64_t step, StopSignals* stop);
  Engine& engine_;
  io::Loader& loader_;
  Group& group_;
  comm::Watchdog& watchdog_;
  const EvaluatorOptions options_;
  StepMemory memory_;
  CudaGraphCache graph_cache_;
  std::size_t floats() const noexcept { return engine_.store().layout().losses * loss_sum_count; }
  EvalMetrics metrics(std::span<const double> sums) const;
  /// Of a batch each, while the next ones are computed: read when the event is done.
  struct BatchSums {
    HostMirror image;
    std::unique_ptr<Event> there;
  };
  std::vector<BatchSums> sums_;
  std::vector<float> own_sums_;  // of all batches of this rank, one after another
  Judge judge_;                  // behind sums_
  bool first_ = true;            // batch: kernels are used for the first time
};

/// Tokens of a sample: positions of the longest input of index values; 0 where no input has several.
std::int64_t tokens_per_sample(const Graph&);

/// "evaluation loss 0.1234, evaluation accuracy 0.9876"
std::string describe(const char* what, const EvalMetrics&);

}  // namespace dtrain::launch
