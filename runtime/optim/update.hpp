// The optimizer of a run: its rule, its flat state buffers on the device, and the global norm of the gradients. Sharded
// (ZeRO-1), it keeps the state of this rank's shard of the parameters and updates that shard alone.
// Owns the state; applies updates to ranges of a ParameterStore on the given stream, from the trainer's thread.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "runtime/device/device.hpp"
#include "runtime/optim/optimizer.hpp"
#include "runtime/optim/update_ledger.hpp"
#include "runtime/plan/flat.hpp"

namespace dtrain {

class Optimizer {
 public:
  /// Throws BugError where a sharded rule needs whole parameters and the layout's shards are not whole.
  Optimizer(Device&, const UpdateRule&, const FlatLayout&, Shard = {});
  const UpdateRule& rule() const noexcept { return rule_; }
  int states() const noexcept { return state_count(rule_); }
  Shard shard() const noexcept { return shard_; }
  bool sharded() const noexcept { return shard_.ranks > 1; }
  /// Updates leave these copies as well: none, or one for each of FlatLayout::params; they stay where they are as long
  /// as this. Not sharded, where most parameters come from other ranks.
  void leave(std::span<const PackedCopy> copies);
  /// From now on updates keep a ledger, on a device whose memory is the host's.
  void keep_ledger();
  /// Null where none is kept.
  UpdateLedger* ledger() const noexcept { return ledger_.get(); }
  /// Between steps, with a ledger: what has changed other than by an update, up to now.
  std::optional<UpdateLedger::Change> changed(const ParameterStore&) const;
  /// Flat state buffer `i` of state_floats(), zero at the start: laid out like the parameters, or, sharded, the own
  /// shards of the buckets one after another.
  float* state(int i) const noexcept { return static_cast<float*>(state_[static_cast<std::size_t>(i)].data()); }
  std::size_t state_floats() const noexcept { return state_floats_; }
  /// Updates the parameters in [begin, end) of the flat buffers; what lies behind the parameters is left alone. Where
  /// needs_whole_parameters(rule), the range may cut through none. With whole shards, those of the own shard; with
  /// equal ones, update_bucket() does it.
  void update(const ParameterStore&, std::size_t begin, std::size_t end, const StepState&, Stream&);
  /// Moves the kept states by the step's statistics, once the last bucket is summed.
  void update_states(const ParameterStore&, const StepState&, Stream&);
  /// The parameters of a bucket; sharded, those of the own shard.
  void update_bucket(const ParameterStore&, std::size_t bucket, const StepState&, Stream&);
  /// Squares of all gradients as they stand, summed in double over each fixed block of norm_block floats; with equal
  /// shards, those of the own shards, the others zero: complete once the ranks have shared them. Device memory.
  std::span<double> block_squares(const ParameterStore&, Stream&);

 private:
  UpdateArgs arguments(const ParameterStore&, const StepState&);

  Device& device_;
  UpdateRule rule_;
  Shard shard_;
  bool whole_ = false;  // the layout's shards are
  std::size_t state_floats_ = 0;
  std::span<const PackedCopy> copies_;
  std::array<Buffer, 2> state_;
  std::size_t blocks_;
  Buffer squares_, norms_;  // doubles
  Buffer matrices_;         // scratch of Muon
  std::size_t params_;      // trained ones
  std::unique_ptr<UpdateLedger> ledger_;
};

/// The first parameter (in graph order) with a gradient or value that is not finite; empty if all are. Host-visible
/// memory.
std::string first_nonfinite(const float* flat, const FlatLayout&);

}  // namespace dtrain
