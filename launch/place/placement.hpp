// Which rank computes on which GPU: a rule over what all ranks see, applied by each of them to the same facts, so that
// all decide, or fail, alike. Pure functions of plain values.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "launch/config/config.hpp"
#include "runtime/device/libraries.hpp"

namespace dtrain::launch {

/// What one rank sees.
struct RankView {
  std::string host;
  std::vector<GpuIdentity> gpus;  // by ordinal
  std::string why_none;           // where there is none
};

struct PlacementRules {
  DeviceChoice device = DeviceChoice::automatic;
  bool share_gpus = false;    // several ranks may compute on one
  bool mixed_models = false;  // GPUs may differ
};

struct Placement {
  static constexpr int cpu = -1;
  std::vector<int> ordinals;  // by rank, of the GPUs that it sees; or cpu, for all
  bool shared = false;        // some GPU has several ranks
  std::vector<std::string> warnings;
};

/// `ranks`: all, in order. Ranks of a host that see the same GPUs take one each, in order: with one visible GPU a rank
/// that is ordinal 0, with all visible the local rank. Throws DeviceError that names ranks, hosts and numbers: some
/// rank without a GPU while another has one, more ranks than GPUs, two ranks on one GPU, GPUs of several models.
Placement place_ranks(std::span<const RankView> ranks, const PlacementRules&);

/// Stand-ins for the GPUs that CUDA_VISIBLE_DEVICES names, where none can be asked: one for each entry up to the first
/// that hides, told apart by host and entry. Unset: none.
std::vector<GpuIdentity> named_gpus(const std::string& host, const std::optional<std::string>& text);

}  // namespace dtrain::launch
