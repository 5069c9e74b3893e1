#include "comm/place/topology.hpp"

#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::comm {
namespace {

// Two NUMA nodes of two cores with two threads each. Node 0 has GPU 1b and an RDMA card behind one switch, and a plain
// card beside it; node 1 has GPU 9b and an RDMA card on another root port. GPU e1 is below the machine: nobody says
// where.
std::string bridge(int index, const std::string& content) {
  return fmt::format(
      R"(<object type="Bridge" gp_index="{}" bridge_type="0-1" depth="0" bridge_pci="0000:[00-ff]">{}</object>)", index,
      content);
}
std::string below_switch(int index, const std::string& bus, const std::string& content) {
  return fmt::format(
      R"(<object type="Bridge" gp_index="{}" bridge_type="1-1" depth="1" bridge_pci="0000:[{}-{}]" pci_busid="0000:{}:00.0" pci_type="0604 [1000:c030] [1000:1] b0" pci_link_speed="63.0">{}</object>)",
      index, bus, bus, bus, content);
}
std::string pci(int index, const std::string& bus, const char* type, const std::string& content = "") {
  return fmt::format(
      R"(<object type="PCIDev" gp_index="{}" pci_busid="0000:{}:00.0" pci_type="{}" pci_link_speed="63.0">{}</object>)",
      index, bus, type, content);
}
std::string gpu(int index, const std::string& bus) {
  return pci(index, bus, "0302 [10de:2330] [10de:16c1] a1");
}
std::string card(int index, const std::string& bus, const char* ethernet, const char* rdma = nullptr) {
  std::string content =
      fmt::format(R"(<object type="OSDev" gp_index="{}" name="{}" osdev_type="2"/>)", index + 1, ethernet);
  if (rdma != nullptr)
    content += fmt::format(R"(<object type="OSDev" gp_index="{}" name="{}" osdev_type="3"/>)", index + 2, rdma);
  return pci(index, bus, "0200 [15b3:1021] [15b3:1] 00", content);
}

std::string node(int number, const std::string& devices) {
  const auto sets = [&](unsigned cpus) {
    return fmt::format(
        R"(cpuset="{0:#010x}" complete_cpuset="{0:#010x}" nodeset="{1:#010x}" complete_nodeset="{1:#010x}")", cpus,
        1U << number);
  };
  const unsigned all = 0xfU << (4 * number);
  std::string out =
      fmt::format(R"(<object type="Package" os_index="{}" {} gp_index="{}">)", number, sets(all), 100 + number);
  out += fmt::format(R"(<object type="NUMANode" os_index="{}" {} gp_index="{}" local_memory="1073741824"/>)", number,
                     sets(all), 110 + number);
  for (int core = 2 * number; core < 2 * number + 2; ++core) {
    out +=
        fmt::format(R"(<object type="Core" os_index="{}" {} gp_index="{}">)", core, sets(3U << (2 * core)), 120 + core);
    for (int cpu = 2 * core; cpu < 2 * core + 2; ++cpu)
      out += fmt::format(R"(<object type="PU" os_index="{}" {} gp_index="{}"/>)", cpu, sets(1U << cpu), 130 + cpu);
    out += "</object>";
  }
  return out + devices + "</object>";
}

Topology machine() {
  const std::string sets =
      R"(cpuset="0x000000ff" complete_cpuset="0x000000ff" allowed_cpuset="0x000000ff" nodeset="0x00000003" complete_nodeset="0x00000003" allowed_nodeset="0x00000003")";
  // hwloc's own reader, which needs no plugin, wants the head in lines.
  std::string xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n";
  xml += "<topology version=\"2.0\">\n";
  xml += R"(<object type="Machine" os_index="0" gp_index="1" )" + sets + ">";
  xml += node(
      0, bridge(10, below_switch(11, "1a", gpu(12, "1b") + card(13, "1c", "ib0", "mlx5_0")) + card(20, "02", "ens2")));
  xml += node(1, bridge(30, gpu(31, "9b")) + bridge(32, card(33, "a0", "ib1", "mlx5_1")));
  xml += bridge(40, gpu(41, "e1"));
  xml += "</object></topology>";
  return Topology::of_xml(xml);
}

const NearNetwork* find(const NearDevice& d, const std::string& name) {
  for (const NearNetwork& n : d.networks)
    if (n.name == name) return &n;
  return nullptr;
}

TEST(Topology, knows_processors_and_memory_near_a_gpu) {
  const Topology t = machine();
  EXPECT_EQ(t.near("0000:1b:00.0").numa_node, 0);
  EXPECT_EQ(t.near("0000:1b:00.0").cpus, (std::vector<int>{0, 1, 2, 3}));
  EXPECT_EQ(t.near("00000000:9B:00.0").numa_node, 1);  // as NVML writes it
  EXPECT_EQ(t.near("00000000:9B:00.0").cpus, (std::vector<int>{4, 5, 6, 7}));
}

TEST(Topology, says_nothing_of_what_it_does_not_know) {
  const Topology t = machine();
  EXPECT_EQ(t.near("0000:e1:00.0").numa_node, -1);
  EXPECT_TRUE(t.near("0000:e1:00.0").cpus.empty());
  EXPECT_FALSE(t.near("0000:e1:00.0").networks.empty());
  for (const char* none : {"", "0000:77:00.0", "nonsense"}) {
    EXPECT_EQ(t.near(none).numa_node, -1);
    EXPECT_TRUE(t.near(none).networks.empty());
  }
  EXPECT_THROW(Topology::of_xml("<topology"), CommError);
  EXPECT_EQ(Topology::of_this_machine().near("ffff:ff:1f.7").numa_node, -1);
}

TEST(Topology, knows_how_near_network_cards_are) {
  const NearDevice near = machine().near("0000:1b:00.0");
  ASSERT_EQ(near.networks.size(), 5u);
  const NearNetwork *same_switch = find(near, "mlx5_0"), *same_node = find(near, "ens2"), *other = find(near, "mlx5_1");
  ASSERT_TRUE(same_switch && same_node && other);
  EXPECT_TRUE(same_switch->rdma);
  EXPECT_FALSE(same_node->rdma);
  EXPECT_GT(same_switch->common_steps, same_node->common_steps);
  EXPECT_GT(same_node->common_steps, other->common_steps);
}

class Cards : public ::testing::Test {
 protected:
  Cards() : root_(std::filesystem::temp_directory_path() / fmt::format("dtrain-cards-{}", getpid())) {
    rdma("mlx5_0", "4: ACTIVE", "400 Gb/sec (4X NDR)");
    rdma("mlx5_1", "4: ACTIVE", "200 Gb/sec (4X HDR)");
    ethernet("ens2", "up", "25000");
  }
  ~Cards() override { std::filesystem::remove_all(root_); }
  void put(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text << "\n";
  }
  void rdma(const std::string& name, const char* state, const char* rate) const {
    put("sys/class/infiniband/" + name + "/ports/1/state", state);
    put("sys/class/infiniband/" + name + "/ports/1/rate", rate);
  }
  void ethernet(const std::string& name, const char* state, const char* speed) const {
    put("sys/class/net/" + name + "/operstate", state);
    put("sys/class/net/" + name + "/speed", speed);
  }
  NetworkCard choose(const char* gpu) const { return choose_card(machine().near(gpu).networks, root_.string()); }
  std::filesystem::path root_;
};

TEST_F(Cards, are_chosen_near_the_gpu) {
  EXPECT_EQ(choose("0000:1b:00.0").name, "mlx5_0");
  EXPECT_EQ(choose("0000:1b:00.0").rate, 50e9);
  EXPECT_EQ(choose("0000:9b:00.0").name, "mlx5_1");
  EXPECT_EQ(choose("0000:9b:00.0").rate, 25e9);
  EXPECT_EQ(choose("0000:77:00.0").name, "");
}

TEST_F(Cards, that_are_down_are_the_last_resort) {
  rdma("mlx5_0", "1: DOWN", "400 Gb/sec (4X NDR)");
  EXPECT_EQ(choose("0000:1b:00.0").name, "mlx5_1");
  rdma("mlx5_1", "2: INIT", "200 Gb/sec (4X HDR)");
  EXPECT_EQ(choose("0000:1b:00.0").name, "ens2");
  EXPECT_EQ(choose("0000:1b:00.0").rate, 25e9 / 8);
  ethernet("ens2", "down", "-1");
  EXPECT_EQ(choose("0000:1b:00.0").name, "mlx5_0");
  EXPECT_EQ(choose("0000:1b:00.0").rate, 0);
}

}  // namespace
}  // namespace dtrain::comm
