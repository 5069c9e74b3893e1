#include "launch/plan/cluster.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>
#include <system_error>

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace {

constexpr double reached = 0.92;         // of a wire's rate by long messages
constexpr double network_step = 15e-6;   // one step of a ring or tree between hosts
constexpr double switched_step = 20e-6;  // one exchange by a switch that adds
constexpr double inside_step = 4e-6;     // one step of a ring inside a host

double log2_up(int n) {
  return std::ceil(std::log2(static_cast<double>(n)));
}

/// Half of an all-reduce, reduce-scatter or all-gather, inside a host.
double half_inside(const Link& link, double bytes, int ranks) {
  if (ranks < 2) return 0;
  const double fraction = static_cast<double>(ranks - 1) / ranks;
  return (link.adds ? link.latency / 2 : (ranks - 1) * link.latency) + fraction * bytes / link.bytes_per_second;
}

}  // namespace

Link parse_link(const std::string& text, const std::string& option) {
  if (text == "nvlink")
    return {
        text, 475e9, switched_step, true,
        "475 GB/s bus bandwidth, published of NCCL on 8 H100 or H200 whose switch adds; 20 us an exchange, assumed"};
  if (text == "nvlink3")
    return {text, 230e9, inside_step, false,
            "230 GB/s bus bandwidth, published of NCCL on 8 A100; 4 us a step of its ring, assumed"};
  if (text == "pcie")
    return {text, 20e9, inside_step, false,
            "20 GB/s, assumed of 16 lanes of PCIe 4 that all ranks use at once; 4 us a step of a ring, assumed"};
  double rate = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, rate);
  double unit = 0;
  const std::string_view rest(at, static_cast<std::size_t>(end - at));
  if (rest == "mbit") unit = 1e6 / 8;
  if (rest == "gbit") unit = 1e9 / 8;
  if (rest == "gbyte") unit = 1e9;
  if (error != std::errc{} || unit == 0 || !(rate > 0) || rate > 1e6)
    throw ConfigError(
        fmt::format("{}: \"{}\" is no link; expected nvlink, nvlink3, pcie, or a rate as in 100mbit, 400gbit, 50gbyte",
                    option, text));
  return {text, reached * rate * unit, network_step, false,
          fmt::format("{:.0f} % of the wire's rate, and {:.0f} us a step, assumed", 100 * reached, 1e6 * network_step)};
}

double all_reduce_seconds(const Cluster& c, double bytes, int ranks) {
  if (ranks < 2) return 0;
  const int inside = std::min(ranks, c.ranks_per_host), hosts = (ranks + inside - 1) / inside;
  double seconds = c.call + 2 * half_inside(c.inside, bytes, inside);
  if (hosts > 1) {
    const double cards = c.cards > 0 ? c.cards : inside;
    const double rate = c.network.bytes_per_second * std::min(cards / inside, 1.0);
    const double shard = bytes / inside, n = hosts;
    const double ring = 2 * (n - 1) * c.network.latency + 2 * (n - 1) / n * shard / rate;
    const double tree = 2 * log2_up(hosts) * c.network.latency + 2 * shard / rate;
    seconds += std::min(ring, tree);
  }
  return seconds;
}

SumCosts sum_costs(const Cluster& cluster, int ranks) {
  return [cluster, ranks](double bytes) {
    return SumCost{all_reduce_seconds(cluster, bytes, ranks), cluster.processor};
  };
}

}  // namespace dtrain::launch
