// Saving: the checkpoints of a run: what it resumes from, and what it writes.
// Owns the writer and what was found; its methods are collective, on the training thread, at step boundaries.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "comm/place/launch_env.hpp"
#include "comm/watch/watchdog.hpp"
#include "comm/world/world.hpp"
#include "io/checkpoint/checkpoint.hpp"
#include "io/checkpoint/checkpoint_writer.hpp"
#include "io/dataset/dataset.hpp"
#include "io/dataset/stream.hpp"
#include "launch/base/signals.hpp"
#include "launch/config/config_file.hpp"
#include "launch/data/data_check.hpp"
#include "launch/report/run_choices.hpp"
#include "launch/report/run_files.hpp"
#include "launch/report/run_status.hpp"
#include "launch/train/model_state.hpp"
#include "launch/train/report.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::launch {

class Saving {
 public:
  /// Takes the lock of the directory and finds what to resume from, which sets `status` and adds to the choices; these
  /// are kept in each checkpoint from then on. Throws CheckpointError.
  Saving(const LoadedConfig&, comm::World&, Group&, Reporter&, RunChoices&, const io::Dataset&, RunStatus&,
         StopSignals&);

  /// Does the run go on from a checkpoint?
  bool resumes() const noexcept { return found_.has_value(); }
  /// What becomes of the files that an earlier run left in log.directory.
  Earlier earlier() const noexcept;
  /// On rank 0: where the run begins anew, checkpoints that are not its own get other names. Returns what to say.
  std::string set_aside() const;
  /// Tells it what the checkpoint that was found says of the data, and keeps its sums in each checkpoint from then on.
  void check_data(DataCheck&, const RunStatus&);
  const std::string& run_id() const noexcept { return run_id_; }
  /// In which the samples of the whole run are drawn.
  io::OrderVersion order() const noexcept { return order_; }
  /// True, and said, where the run that was found has nothing left to do.
  bool finished_before(const RunStatus&);
  /// Loads what was found into the model, and takes up its label of the best.
  void load(ModelState&, RunStatus&);

  /// Once a step: says how a save that was under way has ended.
  void poll(RunStatus&);
  /// Compares what the ranks hold in memory, as each save does, and the packed copies of that program. Throws
  /// NumericError naming tensor and rank, on all ranks alike.
  void verify(const RunStatus&, ModelState&, Program&);
  /// Begins to save the model as it is. The best checkpoint of `status` gets its label once this one is durable.
  void save(RunStatus&, ModelState&);
  /// True where the evaluation of this step is the best so far, by checkpoint.best: `status` knows it then, and this
  /// step is to be saved.
  bool is_best(RunStatus&);
  /// Saves, and waits until it is durable. Throws CheckpointError where it cannot be. Where the run ends before its
  /// last step, exports are given up: the machine may be taken away soon.
  void finish(RunStatus&, ModelState&);
  std::optional<std::uint64_t> durable_step() const noexcept { return writer_->durable_step(); }

 private:
  bool begins_anew();
  io::RunState run_state(const RunStatus&) const;
  void export_each(StopSignals&);
  void make_up_export();
  void recall(RunStatus&) const;
  template <class Value>
  EvalMetrics recalled_eval(const Value&) const;
  void recall_loss_scale(RunStatus&) const;
  void recall_best(RunStatus&);
  void write(RunStatus&, ModelState&);
  void label(const RunStatus&);
  void tell(const io::SaveReport&, RunStatus&);

  const LoadedConfig& input_;
  const RunConfig& config_;
  comm::World& world_;
  Group& group_;
  Reporter& report_;
  const RunChoices& choices_;
  const io::Dataset& data_;
  DataCheck* data_check_ = nullptr;
  std::string run_id_;
  comm::SlurmJob job_;
  bool fresh_ = false;  // the run begins anew
  std::unique_ptr<io::CheckpointWriter> writer_;
  std::function<void(const std::string& path, const io::GivenUp&)> export_;  // none: checkpoint.export is off
  std::optional<io::FoundCheckpoint> found_;
  bool own_ = false;             // in the directory of this run
  bool optimizer_anew_ = false;  // of what was found, its state is not taken
  io::OrderVersion order_ = io::newest_order;
  std::int64_t saving_step_ = -1;        // of the latest save
  std::optional<BestEval> best_before_;  // what is the best again where a save of a better one fails
};

}  // namespace dtrain::launch
