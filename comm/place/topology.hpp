// Topology: what lies near a PCI device in this machine: processors, memory, network cards. From hwloc, which knows
// them by the device's bus id and needs no plugin for GPUs. Owns hwloc's picture of the machine; any one thread.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

namespace dtrain::comm {

/// A network card on the way from a device.
struct NearNetwork {
  std::string name;      // "mlx5_0", "eth0"
  bool rdma = false;     // InfiniBand or RoCE, by its RDMA device
  int common_steps = 0;  // of the paths from the machine to the card and to the device: more are nearer
};

struct NearDevice {
  int numa_node = -1;     // -1: not known
  std::vector<int> cpus;  // as near as any, in ascending order; empty where that is not known
  std::vector<NearNetwork> networks;
};

class Topology {
 public:
  /// This machine, as far as its cpuset goes. Throws CommError where it cannot be read.
  static Topology of_this_machine();
  /// A machine that hwloc described before.
  static Topology of_xml(const std::string& xml);
  Topology(Topology&&) noexcept;
  Topology& operator=(Topology&&) noexcept;
  Topology(const Topology&) = delete;
  Topology& operator=(const Topology&) = delete;
  ~Topology();

  /// `bus_id`: "0000:1b:00.0", as CUDA or NVML write it. Nothing of a device that is not there.
  NearDevice near(const std::string& bus_id) const;

 private:
  struct State;
  explicit Topology(std::unique_ptr<State>);
  std::unique_ptr<State> state_;
};

struct NetworkCard {
  std::string name;  // empty: none
  double rate = 0;   // bytes/s of a link that is up; 0: not known
};
/// The card that sums would use, as NCCL prefers: RDMA before Ethernet, then the nearest, then the fastest. A card that
/// is down only where no other is there. `root`: of /sys.
NetworkCard choose_card(std::span<const NearNetwork>, const std::string& root = "");

}  // namespace dtrain::comm
