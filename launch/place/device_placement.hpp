// DevicePlacement: the device on which this rank computes, chosen by all ranks together before anything is allocated on
// it. Plain values; choose_placement() is collective, on the main thread, and binds the process near its GPU.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/place/topology.hpp"
#include "comm/world/world.hpp"
#include "launch/config/config.hpp"
#include "launch/place/placement.hpp"
#include "launch/place/rank_places.hpp"
#include "runtime/device/device.hpp"

namespace dtrain::launch {

struct DevicePlacement {
  int ordinal = Placement::cpu;   // of the GPU, as this rank sees it
  std::vector<RankPlace> places;  // by rank; empty where all compute on the cpu
  std::vector<std::string> warnings;

  bool on_gpu() const noexcept { return ordinal != Placement::cpu; }
  /// What to print once; empty on the cpu.
  std::string table() const { return places.empty() ? std::string() : place_table(places); }
};

/// Where choose_placement() looks; tests bring their own.
struct PlacementSources {
  std::function<RankView(const std::string& host)> view;
  std::function<comm::NearDevice(const std::string& bus_id)> near;
  std::function<std::vector<Library>()> libraries;  // that must be the same everywhere
  std::string sys_root;                             // of /sys
  const char* nvml = "libnvidia-ml.so.1";
};
PlacementSources this_machine();

/// Every rank calls it; all throw alike: DeviceError as place_ranks() does, CommError where the versions of CUDA, cuDNN
/// or NCCL differ. Ranks that share a GPU are given a NCCL_HOSTID each, without which NCCL refuses them.
DevicePlacement choose_placement(const RunConfig&, comm::World&, Group&, const PlacementSources& = this_machine());

/// Compute threads of a rank on the cpu: as configured, or (0) its part of the cores.
int compute_threads(int configured, const comm::World&);
/// The device of a placement. Throws DeviceError, or ConfigError where it cannot compute with the settings' precision.
std::unique_ptr<Device> make_run_device(const RunConfig&, const comm::World&, const DevicePlacement&);
/// choose_placement() and make_run_device(), which fails on all ranks alike.
std::unique_ptr<Device> placed_device(const RunConfig&, comm::World&, Group&, DevicePlacement&);

}  // namespace dtrain::launch
