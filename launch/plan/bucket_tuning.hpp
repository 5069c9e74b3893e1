// The sizes of a run's buckets, chosen at start where the configuration leaves that open: sums are measured over the
// real ranks for half a second, and what computes for a quarter; rank 0 chooses (bucket_choice.hpp), all follow.
// Collective, on the training thread; nothing is kept but the choice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "comm/world/world.hpp"
#include "launch/config/config.hpp"
#include "launch/plan/profile.hpp"
#include "launch/report/run_choices.hpp"
#include "runtime/device/device.hpp"
#include "runtime/graph/graph.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::launch {

/// What gradients are summed by, and on what.
struct SumPath {
  Group& group;
  Collective& collective;
  Device& device;
  DType wire = DType::f32;
  bool sharded = false;  // reduce-scatter, and the gather of parameters
};
/// Seconds of a sum by its bytes on the wire, from 16 KiB in steps of four up to `most_bytes`, or up to where that
/// would take longer than `seconds` altogether; of the slowest rank. Equal on all ranks. Throws RankFailure.
CommProfile measure_sums(const SumPath&, int hosts, std::size_t most_bytes, double seconds);

/// Are they to be chosen in a run of these settings?
bool chooses_buckets(const comm::CommConfig&, DeviceKind, int ranks) noexcept;

/// What their names among the choices of a run on so many ranks begin with.
std::string bucket_key_of(int ranks);
/// Collective: their name, the same on all ranks. It holds what they depend on.
std::string bucket_key(const RunConfig&, const comm::World&, Group&, const Device&);

/// Collective: replaces what `config` leaves open by numbers, those that the run has chosen before or new ones. Returns
/// a line for the user; empty where there was nothing to choose. Throws RankFailure, CheckpointError.
std::string tune_buckets(RunConfig& config, const Graph&, std::int64_t accumulation, const comm::World&, const SumPath&,
                         RunChoices&);

}  // namespace dtrain::launch
