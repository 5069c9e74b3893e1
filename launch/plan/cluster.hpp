// A cluster as it is described, not measured: links inside a host and between hosts, and what a sum over it takes.
// Plain data and pure functions; every figure is stated by the user or named here with its source.
#pragma once

#include <string>

#include "launch/plan/bucket_choice.hpp"

namespace dtrain::launch {

struct Link {
  std::string name;             // as given: "nvlink", "400gbit"
  double bytes_per_second = 0;  // each way, of one rank, as collectives reach it
  double latency = 0;           // seconds of a message to the next rank
  bool adds = false;            // the switch adds (NVLS): one exchange, however many ranks
  std::string source;           // of the figures
};
struct Cluster {
  Link inside, network;  // between ranks of a host; of one network card
  int ranks_per_host = 8;
  int cards = 0;            // network cards of a host; 0: one a rank
  double call = 10e-6;      // seconds before anything travels
  double processor = 0.08;  // fraction of a rank's processor that a sum takes
};

/// "nvlink", "nvlink3", "pcie", or a rate of the wire, "400gbit" or "50gbyte". Throws ConfigError naming `option`.
Link parse_link(const std::string& text, const std::string& option);

/// Inside a host one exchange by the switch, or a ring. Over hosts first everybody's shard inside the host
/// (reduce-scatter), then rings or trees between hosts, whichever is quicker, each over an equal part of the cards,
/// then all-gather inside; one after another, nothing overlapped.
double all_reduce_seconds(const Cluster&, double bytes, int ranks);
SumCosts sum_costs(const Cluster&, int ranks);

}  // namespace dtrain::launch
