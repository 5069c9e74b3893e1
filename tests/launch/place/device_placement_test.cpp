#include "launch/place/device_placement.hpp"

#include <cstdlib>
#include <mutex>

#include <gtest/gtest.h>

#include "comm/world/local.hpp"

namespace dtrain::launch {
namespace {

RankPlace place(const std::string& host, int ordinal, const std::string& model = "NVIDIA H100") {
  RankPlace p;
  p.host = host;
  p.ordinal = ordinal;
  p.gpu = {model, "GPU-" + host + std::to_string(ordinal), "0000:" + std::to_string(10 + ordinal) + ":00.0", 0};
  p.numa_node = ordinal / 4;
  p.cpus = "0-7";
  p.network = "mlx5_" + std::to_string(ordinal);
  p.network_rate = 50e9;
  p.driver = "570.86.15";
  return p;
}

TEST(RankPlaces, travel_as_text) {
  RankPlace p = place("n1", 3);
  p.links = {{{true, "", 25e9}, {false, "0000:11:00.0", 26.5e9}}, 5, 16};
  const RankPlace q = rank_place(to_text(p));
  EXPECT_EQ(to_text(q), to_text(p));
  EXPECT_EQ(q.gpu.uuid, p.gpu.uuid);
  ASSERT_EQ(q.links.nvlinks.size(), 2u);
  EXPECT_EQ(q.links.nvlinks[1].bus_id, "0000:11:00.0");
  EXPECT_EQ(q.links.pcie_rate(), p.links.pcie_rate());
  EXPECT_THROW(rank_place("{}"), BugError);
}

TEST(RankPlaces, are_a_row_a_rank) {
  RankPlace bare = place("n2", 0);
  bare.numa_node = -1;
  bare.network.clear();
  EXPECT_EQ(place_table(std::vector{place("n1", 0), place("n1", 5), bare}),
            "rank  host  GPU             UUID     PCI           NUMA  cpus  network\n"
            "   0  n1    0: NVIDIA H100  GPU-n10  0000:10:00.0     0  0-7   mlx5_0 (400 Gbit/s)\n"
            "   1  n1    5: NVIDIA H100  GPU-n15  0000:15:00.0     1  0-7   mlx5_5 (400 Gbit/s)\n"
            "   2  n2    0: NVIDIA H100  GPU-n20  0000:10:00.0     -  0-7   -\n");
}

TEST(RankPlaces, of_many_ranks_are_a_row_for_hosts_that_are_alike) {
  std::vector<RankPlace> places;
  for (int host = 1; host <= 64; ++host)
    for (int i = 0; i < 8; ++i) {
      places.push_back(place("n" + std::to_string(host), i, host == 64 ? "NVIDIA A100" : "NVIDIA H100"));
      places.back().network = "ib0";
    }
  EXPECT_EQ(place_table(places),
            "ranks       host                  GPUs             NUMA          network\n"
            "0 to 503    n1 to n63 (63 hosts)  8 x NVIDIA H100  4 x 0, 4 x 1  8 x ib0 (400 Gbit/s)\n"
            "504 to 511  n64                   8 x NVIDIA A100  4 x 0, 4 x 1  8 x ib0 (400 Gbit/s)\n");
}

TEST(RankPlaces, say_what_links_carry_to_the_other_ranks) {
  std::vector<RankPlace> places{place("a", 0), place("a", 1), place("b", 1)};
  places[0].links.nvlinks = {{true, "", 25e9}, {false, "00000000:11:00.0", 25e9}, {false, "00000000:12:00.0", 25e9}};
  places[0].links.pcie_generation = 4;
  places[0].links.pcie_lanes = 16;
  const auto links = links_of(places);
  EXPECT_EQ(links[0].nvlink, 50e9);  // the third GPU takes no part
  EXPECT_NEAR(links[0].pcie, 31.5e9, 0.1e9);
  EXPECT_EQ(links[0].network, "mlx5_0");
  EXPECT_EQ(links[1].nvlink, 0);
}

TEST(RankPlaces, compare_drivers) {
  std::vector<RankPlace> places{place("a", 0), place("a", 1), place("b", 0), place("c", 0)};
  EXPECT_EQ(compare_drivers(places), "");
  places[2].driver = places[3].driver = "560.35.03";
  EXPECT_EQ(compare_drivers(places),
            "NVIDIA drivers differ: 560.35.03 on b and 1 more, 570.86.15 on a; NCCL and speed may suffer: install one "
            "version on all hosts");
}

/// Ranks that are threads, with made-up GPUs at the places that the NVML of the tests knows.
class DevicePlacements : public ::testing::Test {
 protected:
  std::vector<DevicePlacement> take(int ranks, const RunConfig& config, int gpus) {
    std::vector<DevicePlacement> placements(static_cast<std::size_t>(ranks));
    comm::World world;
    const PlacementSources sources{[&](const std::string& host) {
                                     RankView view{host, {}, "none was made up"};
                                     for (int i = 0; i < gpus; ++i)
                                       view.gpus.push_back({"Fake H200", "GPU-" + std::to_string(i), buses[i], 0});
                                     return view;
                                   },
                                   [](const std::string& bus) {
                                     return comm::NearDevice{bus == buses[0] ? 0 : 1, {}, {{"eth7", false, 1}}};
                                   },
                                   {},
                                   "/no/such/root",
                                   DTRAIN_FAKE_NVML};
    comm::run_local(ranks, [&](comm::LocalRank& local) {
      const auto group = local.make_group();
      PlacementSources own = sources;
      own.libraries = [&] {
        return std::vector<Library>{{"CUDA", "13.0", ""}, {"NCCL", local.rank() == 1 ? nccl_of_rank_1 : "2.28.9", ""}};
      };
      placements[static_cast<std::size_t>(local.rank())] = choose_placement(config, world, *group, own);
    });
    return placements;
  }
  std::string nccl_of_rank_1 = "2.28.9";
  static constexpr const char* buses[] = {"0000:1b:00.0", "0000:9b:00.0"};
};

TEST_F(DevicePlacements, are_taken_and_described_by_all_ranks_together) {
  const auto placements = take(2, {}, 2);
  EXPECT_EQ(placements[0].ordinal, 0);
  EXPECT_EQ(placements[1].ordinal, 1);
  EXPECT_EQ(placements[0].table(), placements[1].table());
  ASSERT_EQ(placements[0].places.size(), 2u);
  const RankPlace& second = placements[0].places[1];
  EXPECT_EQ(second.gpu.bus_id, buses[1]);
  EXPECT_EQ(second.numa_node, 1);
  EXPECT_EQ(second.network, "eth7");
  EXPECT_EQ(second.driver, "570.86.15");
  EXPECT_FALSE(second.cpus.empty());
  EXPECT_TRUE(placements[0].warnings.empty());
  // Two links of the test's GPU lead to a switch and one to the other rank's.
  const auto promise = promise_of(links_of(placements[0].places));
  ASSERT_TRUE(promise);
  EXPECT_EQ(promise->kind, LinkKind::nvlink);
  EXPECT_EQ(promise->bus_bytes_per_second, 75e9);
}

TEST_F(DevicePlacements, on_the_cpu_have_nothing_to_say) {
  RunConfig config;
  EXPECT_FALSE(take(2, config, 0)[1].on_gpu());
  config.device = DeviceChoice::cpu;
  const auto placements = take(2, config, 2);
  EXPECT_FALSE(placements[0].on_gpu());
  EXPECT_EQ(placements[0].table(), "");
}

TEST_F(DevicePlacements, want_the_same_libraries_everywhere) {
  nccl_of_rank_1 = "2.27.3";
  try {
    take(2, {}, 2);
    FAIL() << "nothing was thrown";
  } catch (const CommError& e) {
    const std::string text = e.what();
    EXPECT_TRUE(text.starts_with("ranks disagree on the version of NCCL: rank 0 (host ")) << text;
    EXPECT_NE(text.find(" has 2.28.9, rank 1 (host "), std::string::npos) << text;
  }
  EXPECT_FALSE(take(2, {}, 0)[0].on_gpu());  // the cpu asks for nothing
}

TEST_F(DevicePlacements, that_are_too_few_are_an_error) {
  EXPECT_THROW(take(3, {}, 2), DeviceError);
  ASSERT_EQ(std::getenv("NCCL_HOSTID"), nullptr);
  RunConfig config;
  config.cuda.share_gpus = true;
  EXPECT_EQ(take(3, config, 2)[2].ordinal, 0);
  EXPECT_NE(std::getenv("NCCL_HOSTID"), nullptr);  // in a run each rank is a process, and has its own
  unsetenv("NCCL_HOSTID");
}

}  // namespace
}  // namespace dtrain::launch
