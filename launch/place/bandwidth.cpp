#include "launch/place/bandwidth.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include <fmt/format.h>

#include "launch/base/alone.hpp"
#include "launch/base/clock.hpp"
#include "launch/base/text.hpp"

namespace dtrain::launch {

namespace {

/// Below this fraction of the promise something is wrong: NCCL reaches four fifths and more of NVLink and of network
/// cards, and about two thirds of PCI Express.
constexpr double least_fraction = 0.5;
constexpr int least_rounds = 3, most_calls = 1000;

LinkPromise within_hosts(std::span<const RankLinks> ranks, bool one_rank_a_host) {
  const auto slowest = [&](double RankLinks::*rate) {
    return std::min_element(ranks.begin(), ranks.end(),
                            [&](const RankLinks& a, const RankLinks& b) { return a.*rate < b.*rate; });
  };
  const auto nvlink = slowest(&RankLinks::nvlink), pcie = slowest(&RankLinks::pcie);
  if (nvlink->nvlink > 0 && !one_rank_a_host) return {LinkKind::nvlink, nvlink->nvlink, "the NVLinks"};
  return {LinkKind::pcie, pcie->pcie, fmt::format("PCI Express of rank {} ({})", pcie - ranks.begin(), pcie->host)};
}

/// A ring enters and leaves each host once for each of its cards.
LinkPromise between_hosts(std::span<const RankLinks> ranks) {
  std::map<std::string, std::map<std::string, double>> cards;  // by host and name
  for (const RankLinks& r : ranks) cards[r.host][r.network] = r.network_rate;
  LinkPromise least{LinkKind::network, std::numeric_limits<double>::infinity(), ""};
  for (const auto& [host, of_host] : cards) {
    double sum = 0;
    bool known = true;
    for (const auto& [name, rate] : of_host) {
      known = known && rate > 0;
      sum += rate;
    }
    if (!known) sum = 0;
    if (sum >= least.bus_bytes_per_second) continue;
    least.bus_bytes_per_second = sum;
    least.what = fmt::format("the network {} of {}", of_host.size() == 1 ? "card" : "cards", host);
  }
  return least;
}

std::string rate_text(double bytes_per_second) {
  const double value = bytes_per_second / 1e9;
  return fmt::format("{:.{}f} GB/s", value, value < 10 ? 2 : value < 100 ? 1 : 0);
}

/// Where the gradients of a run lie.
Memory& memory_for(Device& device, Collective& collective) {
  Memory* const special = collective.memory();
  return special != nullptr ? *special : device;
}

/// Seconds that one rank's stream took for each call of a round; the slowest rank's, on all ranks alike.
class Rounds {
 public:
  Rounds(Device& device, Collective& collective, Group& group, std::size_t bytes)
      : collective_(collective),
        group_(group),
        buffer_(memory_for(device, collective), bytes),
        stream_(device.make_stream(StreamUse::communication)) {
    tensor_.desc.shape = Shape{static_cast<std::int64_t>(bytes / sizeof(float))};
    tensor_.data = buffer_.data();
    device.zero(buffer_.data(), bytes, *stream_);
    stream_->synchronize();
  }

  double run(int calls) {
    group_.barrier();
    const auto begin = Clock::now();
    alone([&] {
      for (int i = 0; i < calls; ++i) collective_.all_reduce(tensor_, Reduce::sum, *stream_);
      stream_->synchronize();
      collective_.check();
    });
    const double mine = since(begin) / calls;
    double slowest = 0;
    for (const auto& theirs : group_.all_gather(std::as_bytes(std::span(&mine, 1)))) {
      double value = 0;
      std::memcpy(&value, theirs.data(), sizeof value);
      slowest = std::max(slowest, value);
    }
    return std::max(slowest, 1e-9);
  }

 private:
  Collective& collective_;
  Group& group_;
  Buffer buffer_;
  Tensor tensor_;
  std::unique_ptr<Stream> stream_;  // last: finishes what it was given before the rest goes
};

}  // namespace

std::optional<LinkPromise> promise_of(std::span<const RankLinks> ranks) {
  if (ranks.size() < 2) return std::nullopt;
  std::set<std::string> hosts;
  for (const RankLinks& r : ranks) hosts.insert(r.host);
  LinkPromise promise = within_hosts(ranks, hosts.size() == ranks.size());
  if (hosts.size() > 1) {
    LinkPromise network = between_hosts(ranks);
    if (network.bus_bytes_per_second < promise.bus_bytes_per_second) promise = std::move(network);
  }
  if (promise.bus_bytes_per_second <= 0) return std::nullopt;
  return promise;
}

std::optional<double> BandwidthProbe::fraction() const {
  if (!promise) return std::nullopt;
  return bus_bytes_per_second / promise->bus_bytes_per_second;
}

BandwidthProbe probe_bandwidth(Device& device, Collective& collective, Group& group, double seconds,
                               std::size_t bytes) {
  BandwidthProbe probe;
  const auto begin = Clock::now();
  const auto unit = sizeof(float) * static_cast<std::size_t>(group.size());
  probe.bytes = std::max(bytes / unit, std::size_t{1}) * unit;
  std::optional<Rounds> rounds;
  group.agree([&] { rounds.emplace(device, collective, group, probe.bytes); });
  rounds->run(1);  // connects
  const double once = rounds->run(1);
  // All ranks have the same figures, so all make the same calls. A slow link gets few.
  const int calls = std::clamp(static_cast<int>(seconds / 8 / once), 1, most_calls);
  probe.calls = 2;
  std::vector<double> times;
  double spent = 2 * once;
  while (static_cast<int>(times.size()) < least_rounds || spent + times.back() * calls < seconds) {
    times.push_back(rounds->run(calls));
    probe.calls += calls;
    spent += times.back() * calls;
    if (spent > 2 * seconds) break;
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  const double n = group.size();
  probe.bus_bytes_per_second = 2 * (n - 1) / n * static_cast<double>(probe.bytes) / times[times.size() / 2];
  probe.seconds = since(begin);
  return probe;
}

std::string probe_text(const BandwidthProbe& p) {
  std::string out = fmt::format("all-reduce: {} of bus bandwidth in calls of {}", rate_text(p.bus_bytes_per_second),
                                bytes_text(static_cast<double>(p.bytes)));
  if (p.promise)
    out += fmt::format(", {:.0f} % of the {} promised by {}", 100 * *p.fraction(),
                       rate_text(p.promise->bus_bytes_per_second), p.promise->what);
  return out;
}

std::string probe_warning(const BandwidthProbe& p) {
  if (!p.promise || *p.fraction() >= least_fraction) return {};
  std::string advice;
  switch (p.promise->kind) {
    case LinkKind::nvlink:
      advice =
          "see `nvidia-smi topo -m` and `nvidia-smi nvlink -s`, whether the fabric manager runs, and what NCCL chose "
          "(NCCL_DEBUG=INFO; NCCL_P2P_DISABLE must not be set)";
      break;
    case LinkKind::pcie:
      advice =
          "see `nvidia-smi topo -m`, whether other jobs use these GPUs, whether the processors' IOMMU or PCIe access "
          "control stands between them, and what NCCL chose (NCCL_DEBUG=INFO)";
      break;
    case LinkKind::network:
      advice =
          "see which card and protocol NCCL chose (NCCL_DEBUG=INFO, NCCL_IB_HCA, NCCL_SOCKET_IFNAME), whether RDMA "
          "reaches the GPUs (nvidia-peermem), and what else uses the network";
      break;
  }
  return fmt::format("{}; {}", probe_text(p), advice);
}

}  // namespace dtrain::launch
