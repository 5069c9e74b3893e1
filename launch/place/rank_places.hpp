// Where each rank of a GPU run sits: host, GPU, processors, network card; and what follows from all of them together.
// Plain values and pure functions: each rank describes itself, the descriptions travel as text, and all see the same.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "launch/place/bandwidth.hpp"
#include "runtime/device/gpu_monitor.hpp"
#include "runtime/device/libraries.hpp"

namespace dtrain::launch {

struct RankPlace {
  std::string host;
  int ordinal = 0;  // of the GPU, as this rank sees it
  GpuIdentity gpu;
  int numa_node = -1;  // near the GPU; -1: not known
  std::string cpus;    // that the rank may use: "0-7,64-71"
  std::string network;
  double network_rate = 0;  // bytes/s; 0: not known
  GpuLinks links;
  std::string driver;  // version
};

/// One line, and back. Throws BugError for what no rank wrote.
std::string to_text(const RankPlace&);
RankPlace rank_place(const std::string& text);

/// One row a rank: host, GPU (name, UUID, PCI), NUMA node, processors, network card. With more than `most_rows` ranks
/// one row a host, or one for hosts in a row that differ in nothing but names and numbers.
std::string place_table(std::span<const RankPlace>, std::size_t most_rows = 16);

/// "mlx5_0 (400 Gbit/s)"; "-" without a name.
std::string card_text(const std::string& name, double bytes_per_second);

/// What each rank's GPU can send to the others of the run.
std::vector<RankLinks> links_of(std::span<const RankPlace>);

/// Hosts whose NVIDIA drivers differ, which may work: "NVIDIA drivers differ: 570.86.15 on n1, 560.35.03 on n2; ...".
/// Empty where they are equal.
std::string compare_drivers(std::span<const RankPlace>);

}  // namespace dtrain::launch
