#include "launch/place/bandwidth.hpp"

#include <gtest/gtest.h>

#include "comm/world/local.hpp"

namespace dtrain::launch {
namespace {

constexpr double gb = 1e9;

RankLinks links(const char* host, double nvlink, double pcie, const char* network = "", double network_rate = 0) {
  return {host, nvlink * gb, pcie * gb, network, network_rate * gb};
}

TEST(LinkPromises, within_a_host_the_slowest_nvlinks_or_pci_express_where_some_rank_has_none) {
  const auto nvlink = promise_of(std::vector{links("a", 450, 63), links("a", 425, 63)});
  ASSERT_TRUE(nvlink);
  EXPECT_EQ(nvlink->kind, LinkKind::nvlink);
  EXPECT_EQ(nvlink->bus_bytes_per_second, 425 * gb);
  const auto pcie = promise_of(std::vector{links("a", 450, 63), links("a", 0, 31.5)});
  ASSERT_TRUE(pcie);
  EXPECT_EQ(pcie->kind, LinkKind::pcie);
  EXPECT_EQ(pcie->bus_bytes_per_second, 31.5 * gb);
  EXPECT_EQ(pcie->what, "PCI Express of rank 1 (a)");
}

TEST(LinkPromises, between_hosts_the_cards_of_the_host_with_the_slowest) {
  const std::vector ranks{links("a", 450, 63, "mlx5_0", 50), links("a", 450, 63, "mlx5_1", 50),
                          links("b", 450, 63, "mlx5_0", 50), links("b", 450, 63, "mlx5_0", 50)};
  const auto promise = promise_of(ranks);
  ASSERT_TRUE(promise);
  EXPECT_EQ(promise->kind, LinkKind::network);
  EXPECT_EQ(promise->bus_bytes_per_second, 50 * gb);
  EXPECT_EQ(promise->what, "the network card of b");
  // One rank a host: NVLinks carry nothing, PCI Express may be slower than the card.
  const auto narrow = promise_of(std::vector{links("a", 450, 63, "mlx5_0", 50), links("b", 450, 31.5, "mlx5_0", 50)});
  ASSERT_TRUE(narrow);
  EXPECT_EQ(narrow->what, "PCI Express of rank 1 (b)");
}

TEST(LinkPromises, nothing_where_something_is_not_known) {
  EXPECT_FALSE(promise_of(std::vector{links("a", 450, 63)}));
  EXPECT_FALSE(promise_of(std::vector{links("a", 0, 0), links("a", 450, 63)}));
  EXPECT_FALSE(promise_of(std::vector{links("a", 450, 63, "mlx5_0", 50), links("b", 450, 63, "eth0", 0)}));
}

TEST(BandwidthProbes, warn_below_half_of_the_promise) {
  BandwidthProbe probe;
  probe.bytes = 64 << 20;
  probe.bus_bytes_per_second = 371 * gb;
  EXPECT_EQ(probe_text(probe), "all-reduce: 371 GB/s of bus bandwidth in calls of 64.0 MiB");
  EXPECT_EQ(probe_warning(probe), "");
  probe.promise = promise_of(std::vector{links("a", 450, 63), links("a", 450, 63)});
  EXPECT_EQ(probe_text(probe),
            "all-reduce: 371 GB/s of bus bandwidth in calls of 64.0 MiB, 82 % of the 450 GB/s promised by the NVLinks");
  EXPECT_EQ(probe_warning(probe), "");
  probe.bus_bytes_per_second = 12.5 * gb;
  const std::string warning = probe_warning(probe);
  EXPECT_EQ(warning.substr(0, warning.find(';')),
            "all-reduce: 12.5 GB/s of bus bandwidth in calls of 64.0 MiB, 3 % of the 450 GB/s promised by the NVLinks");
  EXPECT_NE(warning.find("NCCL_DEBUG=INFO"), std::string::npos);
}

// Real sums, between threads: what the figure is made of, and that all ranks have the same one.
TEST(BandwidthProbes, measure_the_collective_they_are_given) {
  std::vector<BandwidthProbe> probes(2);
  const auto begin = std::chrono::steady_clock::now();
  comm::run_local(2, [&](comm::LocalRank& local) {
    const auto group = local.make_group();
    const auto collective = local.make_collective();
    const auto device = make_cpu_device(1);
    BandwidthProbe& mine = probes[static_cast<std::size_t>(local.rank())];
    mine = probe_bandwidth(*device, *collective, *group, 0.2, 1 << 20);
  });
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(probes[0].bytes, 1u << 20);
  EXPECT_GE(probes[0].calls, 5);
  EXPECT_EQ(probes[0].bus_bytes_per_second, probes[1].bus_bytes_per_second);
  // Two ranks: bus bytes are the call's. No call can have been faster than all of them together took.
  EXPECT_GT(probes[0].bus_bytes_per_second * spent.count(), static_cast<double>(1 << 20));
  EXPECT_LE(probes[0].seconds, spent.count());
  EXPECT_LT(probes[0].bus_bytes_per_second, 1e12);
}

}  // namespace
}  // namespace dtrain::launch
