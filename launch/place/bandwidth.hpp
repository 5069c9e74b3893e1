// What the links between the ranks' GPUs promise, and what the run's all-reduce reaches at start.
// Plain values and free functions; probe_bandwidth() is collective, and waits for the device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "runtime/device/device.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::launch {

/// What one rank's GPU can send, in bytes/s one way, by each kind of link; 0 where unknown.
struct RankLinks {
  std::string host;
  double nvlink = 0;  // to switches, and to other GPUs of the run
  double pcie = 0;
  std::string network;  // the card nearest to the GPU: "mlx5_0"
  double network_rate = 0;
};

enum class LinkKind : std::uint8_t { nvlink, pcie, network };

/// The link that bounds a sum over all ranks.
struct LinkPromise {
  LinkKind kind = LinkKind::pcie;
  double bus_bytes_per_second = 0;
  std::string what;  // "the NVLinks", "PCI Express of rank 3 (n1)", "the network cards of n2"
};

/// By rank. Within a host the slowest rank's NVLinks, or PCI Express where some rank has none; between hosts also the
/// cards of the host that has the slowest. Empty where something needed is not known.
std::optional<LinkPromise> promise_of(std::span<const RankLinks>);

/// What the run's collective carried at start: the figure that achieved bus bandwidth is compared with.
struct BandwidthProbe {
  double bus_bytes_per_second = 0;  // bytes x 2 (N - 1) / N / seconds of the probe's median round, of the slowest rank
  std::size_t bytes = 0;            // of a call
  int calls = 0;
  double seconds = 0;  // that it took in all
  std::optional<LinkPromise> promise;

  /// Of what the links promise; empty without a promise.
  std::optional<double> fraction() const;
};

/// All-reduces of up to `bytes` float32 zeros for about `seconds`. Every rank calls it; all get the same figure.
BandwidthProbe probe_bandwidth(Device&, Collective&, Group&, double seconds, std::size_t bytes = std::size_t{64} << 20);

/// "all-reduce: 371 GB/s of bus bandwidth in calls of 64 MiB, 82 % of the 450 GB/s promised by the NVLinks"
std::string probe_text(const BandwidthProbe&);
/// What to look at where the figure is far below the promise; empty where it is not.
std::string probe_warning(const BandwidthProbe&);

}  // namespace dtrain::launch
