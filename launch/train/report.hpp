// Reporter: everything that a run says: lines, the progress bar, metrics.jsonl, summary.json.
// Owns these and the clock between reports; one a rank, on the training thread. Only rank 0's speaks or writes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/world/world.hpp"
#include "io/checkpoint/checkpoint_writer.hpp"
#include "launch/base/clock.hpp"
#include "launch/base/progress.hpp"
#include "launch/config/config_file.hpp"
#include "launch/report/gpu_watch.hpp"
#include "launch/report/run_files.hpp"
#include "launch/report/run_status.hpp"
#include "launch/train/engine.hpp"
#include "runtime/device/step_state.hpp"

namespace dtrain::launch {

class Reporter {
 public:
  Reporter(const LoadedConfig&, const comm::World&);

  // ---- lines
  void say(const std::string& text);
  void warn(const std::string& text) const;
  /// What a save came to.
  void tell(const io::SaveReport&);
  /// What is going to run, before the first step.
  void announce(const Engine&, const BatchSplit&, const RunStatus&);
  /// What is printed next begins a line of its own.
  void end_progress();

  // ---- files
  std::string summary_path() const { return config_.log.directory + "/summary.json"; }
  /// Takes the directory for this run, and keeps what an earlier one left there.
  void take_directory(const std::string& run_id, Earlier);
  /// Writes config.yaml, with remarks on what was chosen at start, and goes on with metrics.jsonl after the steps that
  /// are done.
  void open_files(const RunStatus&, const std::vector<std::string>& remarks);
  /// summary.json, and the lines that end a run. `average_hash`: empty without a moving average.
  void summarize(const RunStatus&, const Device&, const std::string& parameter_hash, const std::string& average_hash);

  // ---- on the way. `waited`: seconds that the training loader has waited so far
  void begin(const RunStatus&, double waited);
  /// What phases add to, until the next logged step.
  PhaseSeconds& seconds() noexcept { return seconds_; }
  /// A step was done. `logged`: metrics are due. `sums`: what sums over ranks took; cleared where it was logged.
  void step_done(const RunStatus&, const StepState&, bool logged, double waited, CommunicationSeconds& sums);
  /// FLOP/s that matrix products reached at start, of all ranks together: what the model reaches is compared with it.
  void compare_with_products(double flops_per_second) noexcept { matrix_rate_ = flops_per_second; }
  /// What the all-reduce reached at start, in bytes/s of bus bandwidth: what is achieved later is compared with it.
  void compare_with_probe(double bus_bytes_per_second) noexcept { probe_ = bus_bytes_per_second; }

  // ---- energy. Every rank asks its own GPU, and the sums of a step carry the answers to rank 0
  /// This rank sees to the GPU at `bus_id`, for so many ranks that compute on it; empty: another rank does, or nobody.
  void watch_gpu(const std::string& bus_id, int ranks);
  /// What the GPU used since the last call, or nothing: it is asked once a second at most.
  Energy energy_spent(const RunStatus&);
  /// What all ranks told of in a step.
  void count(const Energy& of_all) noexcept;
  /// An evaluation that took so many seconds; they do not count as training.
  void evaluated(const RunStatus&, double seconds);

 private:
  void restore_files();
  void log_step(const RunStatus&, const StepState&, double waited, CommunicationSeconds&);
  void put_gpu(StepMetrics&);
  double data_seconds(double waited) const;
  void show_progress(const RunStatus&);

  const LoadedConfig& input_;
  const RunConfig& config_;
  const comm::World& world_;
  bool main_;
  std::vector<GraphLoss> losses_;
  std::vector<bool> classes_;  // by loss: it compares labels
  std::unique_ptr<Progress> progress_;
  Progress::Now now_;
  io::DirectoryLock lock_;     // of the directory
  std::string configuration_;  // config.yaml
  std::optional<MetricsFile> metrics_;
  std::optional<GpuWatch> gpu_;
  int ranks_on_gpu_ = 1;
  Energy recent_energy_, all_energy_;        // of all GPUs; since metrics had it last, and since the start
  std::optional<double> joules_per_sample_;  // that metrics had last
  double probe_ = 0;
  // Of models that read tokens; else 0.
  double tokens_per_sample_ = 0, flops_per_sample_ = 0, matrix_rate_ = 0;
  LossScaling scaling_;
  PhaseSeconds seconds_;  // sums since the last logged step
  std::int64_t interval_steps_ = 0, last_line_ = 0;
  bool log_due_ = false, asynchronous_ = false;
  double waited_before_ = 0, train_seconds_ = 0;
  Clock::time_point start_, interval_start_;
};

}  // namespace dtrain::launch
