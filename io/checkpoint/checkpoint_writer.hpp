// Publishes checkpoints while training goes on: one per run and rank, built, called and destroyed by all ranks alike.
// save() copies this rank's shard to a host buffer; a thread of the writer's own does the file calls; every exchange
// with other ranks happens inside the methods, on the caller's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/checkpoint/checkpoint.hpp"

namespace dtrain::io {

/// How one save ended; the same on all ranks.
struct SaveReport {
  std::uint64_t step = 0;
  bool durable = false;              // published and synced: survives a crash of the machine
  std::string path;                  // of the step directory
  std::string error;                 // where it failed: one line naming path and bytes; training goes on
  std::uint64_t bytes = 0;           // of all shards
  double copy_seconds = 0;           // this rank's stall in save()
  double write_seconds = 0;          // from save() to the end, in the background
  std::vector<std::string> removed;  // older checkpoints removed by retention
  std::vector<std::string> remarks;  // what else happened: others set aside, a removal that failed
};

class CheckpointWriter {
 public:
  /// Collective: rank 0 creates and locks `config.directory` and removes what dead runs left in it. Throws
  /// CheckpointError on all ranks where that fails (another job holds it: host and pid are named). Keeps references
  /// to `group` and `files`.
  CheckpointWriter(Group& group, const CheckpointConfig& config, std::string run_id,
                   FileSystem& files = posix_file_system());
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// The run goes on from this checkpoint of the same directory. Newer ones in the directory belong to a future that
  /// is given up: they are set aside (renamed, not removed) before the first new one is published. Without this call
  /// that holds for every checkpoint found there.
  void continue_from(std::uint64_t step) noexcept;

  /// What rank 0's thread of saves does with the step directory of each checkpoint that has become durable, before the
  /// save ends. What it throws is a remark of the report: the checkpoint stays what it is. The next save waits for it,
  /// so it asks now and then whether it is given up.
  void when_durable(std::function<void(const std::string& path, const GivenUp&)>);
  /// That work, of this checkpoint and of later ones, is given up: the run is stopping, and its last checkpoint must
  /// not wait. Not collective.
  void give_up_work() noexcept;

  /// Collective, at a step boundary: checks that floating-point tensors are finite and all tensors equal on all ranks
  /// (NumericError naming the tensor, and the rank, on all ranks), copies, and returns while the writing goes on.
  /// `state` is that of rank 0. Waits for a save in flight first; returns that one's report.
  /// A step that is already durable is not written again. `best`: this step or an earlier one in the directory, which
  /// gets the label once this one is durable, and is never removed while it is the best.
  std::optional<SaveReport> save(const RunState& state, std::span<const StateTensor> tensors,
                                 std::optional<std::uint64_t> best = std::nullopt);

  /// Collective, at each step boundary: free when nothing is in flight, else one small exchange. The report of a save
  /// that has ended, once. Throws CheckpointError when `failures_allowed` saves in a row have failed.
  std::optional<SaveReport> poll();

  /// Collective: waits for the save in flight. Call before the run ends and before leaving on a signal.
  std::optional<SaveReport> finish();

  /// Labels a step that is durable already, or (nothing) takes away a label of what is not there; rank 0 does it, with
  /// no save in flight. Returns what went wrong, or "".
  std::string label_best(std::optional<std::uint64_t> best);

  bool in_flight() const noexcept;
  /// The newest step that is known to be durable (or resumed from); nothing yet: empty.
  std::optional<std::uint64_t> durable_step() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dtrain::io
