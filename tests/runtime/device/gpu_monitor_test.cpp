// What NVML's answers become, from a library of the tests' own: there may be no GPU here.
#include "runtime/device/gpu_monitor.hpp"

#include <gtest/gtest.h>

namespace dtrain {
namespace {

TEST(GpuMonitor, says_why_there_is_nothing_to_see) {
  const GpuMonitor none("libthere-is-no-such.so.1");
  EXPECT_EQ(none.why_not(), "libthere-is-no-such.so.1 cannot be loaded");
  EXPECT_TRUE(none.read_all().empty());
  EXPECT_FALSE(none.read("00000000:1B:00.0"));
  // A library of that name that is none.
  EXPECT_EQ(GpuMonitor("libm.so.6").why_not(), "libm.so.6 lacks what every NVML has");
}

TEST(GpuMonitor, reads_what_each_gpu_says) {
  const GpuMonitor monitor(DTRAIN_FAKE_NVML);
  ASSERT_EQ(monitor.why_not(), "");
  EXPECT_EQ(monitor.driver(), "570.86.15");
  const auto gpus = monitor.read_all();
  ASSERT_EQ(gpus.size(), 2u);
  EXPECT_EQ(gpus[0].name, "Fake H200 0");
  EXPECT_EQ(gpus[0].bus_id, "00000000:1B:00.0");
  EXPECT_EQ(gpus[0].uuid, "GPU-00000000-0000-0000-0000-000000000000");
  EXPECT_EQ(gpus[0].memory_total, 150000000000u);
  EXPECT_EQ(gpus[0].memory_used, 1000000000u);
  EXPECT_EQ(gpus[0].utilization, 3);
  EXPECT_FALSE(gpus[0].joules);  // it does not count them
  EXPECT_EQ(gpus[1].joules, 500.0);
  EXPECT_EQ(gpus[1].watts, 612.5);
  EXPECT_EQ(gpus[1].celsius, 55);
}

TEST(GpuMonitor, finds_a_gpu_by_its_place_however_that_is_written) {
  const GpuMonitor monitor(DTRAIN_FAKE_NVML);
  for (const char* id : {"00000000:9B:00.0", "0000:9b:00.0", "0000:9B:00.0"}) {
    const auto gpu = monitor.read(id);
    ASSERT_TRUE(gpu) << id;
    EXPECT_EQ(gpu->name, "Fake H200 1");
  }
  EXPECT_FALSE(monitor.read("0000:1c:00.0"));
  EXPECT_FALSE(monitor.read(""));
}

TEST(GpuMonitor, says_what_a_gpu_is_joined_to) {
  const GpuMonitor monitor(DTRAIN_FAKE_NVML);
  const auto first = monitor.links("0000:1b:00.0"), second = monitor.links("0000:9b:00.0");
  ASSERT_TRUE(first && second);
  ASSERT_EQ(first->nvlinks.size(), 3u);  // the fourth is down
  EXPECT_TRUE(first->nvlinks[0].to_switch);
  EXPECT_EQ(first->nvlinks[0].bus_id, "");
  EXPECT_EQ(first->nvlinks[0].rate, 26.562e9);
  EXPECT_FALSE(first->nvlinks[2].to_switch);
  EXPECT_EQ(first->nvlinks[2].bus_id, "00000000:9B:00.0");
  EXPECT_EQ(second->nvlinks[2].bus_id, "00000000:1B:00.0");
  EXPECT_EQ(second->nvlinks[0].rate, 25e9);
  EXPECT_EQ(first->pcie_generation, 5);
  EXPECT_NEAR(first->pcie_rate(), 63e9, 0.1e9);
  EXPECT_NEAR(second->pcie_rate(), 31.5e9, 0.1e9);
  EXPECT_EQ(GpuLinks{}.pcie_rate(), 0);
  EXPECT_FALSE(monitor.links("0000:1c:00.0"));
}

}  // namespace
}  // namespace dtrain
