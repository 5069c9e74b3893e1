#include "launch/gpu_watch.hpp"

#include <gtest/gtest.h>

namespace dtrain::launch {
namespace {

TEST(GpuWatch, divides_energy_by_samples) {
  GpuWatch watch("0000:9b:00.0", DTRAIN_FAKE_NVML);  // 1.5 J more at each reading
  watch.look(0, 10);
  ASSERT_TRUE(watch.latest());
  EXPECT_EQ(watch.latest()->name, "Fake H200 1");
  EXPECT_FALSE(watch.joules_per_sample());
  watch.look(50, 10.5);  // too soon
  EXPECT_FALSE(watch.joules_per_sample());
  watch.look(100, 11);
  EXPECT_DOUBLE_EQ(*watch.joules_per_sample(), 0.015);
  watch.look(150, 12.5);
  EXPECT_DOUBLE_EQ(*watch.joules_per_sample(), 0.03);
  EXPECT_DOUBLE_EQ(*watch.joules_per_sample_of_all(), 0.02);
}

TEST(GpuWatch, has_nothing_to_say_without_a_gpu_or_its_energy) {
  for (auto& watch : {GpuWatch(""), GpuWatch("0000:9b:00.0", "libthere-is-no-such.so.1")}) EXPECT_FALSE(watch.latest());
  GpuWatch of_an_old_gpu("0000:1b:00.0", DTRAIN_FAKE_NVML);
  of_an_old_gpu.look(0, 1);
  of_an_old_gpu.look(100, 3);
  EXPECT_TRUE(of_an_old_gpu.latest());
  EXPECT_FALSE(of_an_old_gpu.joules_per_sample());
}

}  // namespace
}  // namespace dtrain::launch
