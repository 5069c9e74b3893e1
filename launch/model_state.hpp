// ModelState: what the host reads and writes of a run's device memory, so that the trainer's loop touches none of it:
// parameters and optimizer state for checkpoints and hashes, the sums of a step, the wish to stop.
// Owns the host's images (none are needed on a cpu) and views store, optimizer and stream; used on the training thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"
#include "runtime/device.hpp"
#include "runtime/flat.hpp"
#include "runtime/group.hpp"
#include "runtime/host_mirror.hpp"
#include "runtime/update.hpp"

namespace dtrain::launch {

class ModelState {
 public:
  ModelState(Device&, const ParameterStore&, const Optimizer&, Stream& compute);

  /// Views of the host's images, named as checkpoints name them: pull() before a save, push() after a load.
  std::vector<io::StateTensor> tensors() const;
  void pull();
  void push();
  /// Fills the parameters on the device; see dtrain::initialize.
  void initialize(const Graph&, std::uint64_t seed);
  /// Rank 0's parameters and optimizer state on all ranks. Collective; blocks.
  void broadcast(Collective&);
  /// As in summary.json, of the parameters at the latest pull().
  std::string parameter_hash() const { return dtrain::parameter_hash(params_.as<float>(), store_.layout()); }
  /// The first parameter with a gradient that is not finite; empty if all are.
  std::string first_nonfinite_gradient();

  /// This rank's share of the extra in which ranks add up their wish to stop; before the last micro batch of a step.
  void wish_to_stop(bool);
  /// The sums of the latest pass, by LossSum; waits for the device.
  const float* read_sums();
  /// True where some rank wished to stop, in the sums read last.
  bool stop_wished() const { return sums_.as<float>()[stop_extra] > 0; }

 private:
  static constexpr std::size_t stop_extra = loss_sum_count;

  Device& device_;
  const ParameterStore& store_;
  Stream& compute_;
  HostMirror params_, sums_, wish_;
  std::vector<HostMirror> moments_;
  std::vector<std::string> moment_names_;
};

}  // namespace dtrain::launch
