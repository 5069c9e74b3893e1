// ModelState: what the host reads and writes of a run's device memory, so that the trainer's loop touches none of it:
// parameters, their average and optimizer state for checkpoints and hashes.
// Owns the host's images (none are needed on a cpu) and views store, optimizer and stream; used on the training thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/checkpoint/checkpoint.hpp"
#include "runtime/device/device.hpp"
#include "runtime/device/host_mirror.hpp"
#include "runtime/optim/average.hpp"
#include "runtime/optim/update.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/program/program.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::launch {

class ModelState {
 public:
  /// `average` may be null. The collective is that of the ranks among which the optimizer is sharded. `part`: frozen
  /// parameters are not in checkpoints.
  ModelState(Device&, const ParameterStore&, const Optimizer&, ParameterAverage* average, Collective&, Stream& compute,
             bool part = false);

  /// Views of the host's images, named as checkpoints name them: pull() before a save, push() after a load. A sharded
  /// optimizer's state is whole there: it is put together in a pull, which is collective, and taken apart in a push.
  std::vector<io::StateTensor> tensors();
  /// Those of them that are loaded: without the averages of frozen parameters, which are the parameters.
  std::vector<io::StateTensor> loaded_tensors();
  /// What a checkpoint may hold of frozen parameters beside their values: averages, and state of when they were
  /// trained.
  std::vector<std::string> names_of_frozen() const;
  void pull();
  /// Those of which each rank holds all, and not through other ranks: all but a sharded optimizer's state. Frozen
  /// parameters are among them in any case.
  std::vector<io::StateTensor> replicated_tensors();
  void pull_replicated();
  void push();
  /// After the save: gives back the memory of whole images of a sharded state.
  void release_tensors();
  /// The parameters, and their average, alone; not collective.
  void pull_parameters();
  /// For what a checkpoint did not hold: the average begins as the parameters. After push().
  void restart_average();
  /// Fills the parameters on the device; see dtrain::initialize.
  void initialize(const Graph&, std::uint64_t seed);
  /// Rank 0's parameters and optimizer state on all ranks; what is sharded is nobody else's. Collective; blocks.
  void broadcast();
  /// Collective, between steps: throws NumericError, naming tensor and rank, on all ranks alike, where the memory of
  /// some rank has changed in a way that a comparison of the ranks does not show: what it alone has, and the packed
  /// copies of that program.
  void check_memory(Group&, Program* packed_too = nullptr);
  /// As in summary.json, of the parameters at the latest pull().
  std::string parameter_hash() const { return dtrain::parameter_hash(params_.as<float>(), store_.layout()); }
  /// The same of the frozen ones alone.
  std::string frozen_hash() const { return dtrain::parameter_hash(params_.as<float>(), store_.layout().frozen()); }
  /// The same of their moving average; empty without one.
  std::string average_hash() const;
  /// The first parameter with a gradient that is not finite; empty if all are.
  std::string first_nonfinite_gradient();

 private:
  std::vector<io::StateTensor> some_tensors(bool with_frozen, bool with_moments);
  std::string memory_fault(Program* packed_too);
  void make_images();
  void gather_bucket(std::size_t bucket, const Tensor& own, Stream&);
  /// Calls visit(own shard in the image, own shard in the compact state, floats) for each bucket.
  template <class Visit>
  void each_shard(std::size_t moment, Visit visit);

  Device& device_;
  const ParameterStore& store_;
  const Optimizer& optimizer_;
  ParameterAverage* average_;
  Collective& collective_;
  Stream& compute_;
  const bool part_;
  HostMirror params_, averages_;
  HostMirror gathered_;                     // of the gradients, where moments of all ranks come together; sharded only
  std::vector<HostMirror> moments_;         // as on the device: of the own shards, where sharded
  std::vector<std::vector<float>> images_;  // sharded: whole moments, while tensors() are in use
  std::vector<std::string> moment_names_;
};

}  // namespace dtrain::launch
