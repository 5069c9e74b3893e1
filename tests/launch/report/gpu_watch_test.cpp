#include "launch/report/gpu_watch.hpp"

#include <gtest/gtest.h>

namespace dtrain::launch {
namespace {

TEST(GpuWatch, tells_each_joule_once_with_the_samples_it_was_for) {
  GpuWatch watch("0000:9b:00.0", DTRAIN_FAKE_NVML);  // 1.5 J more at each reading
  watch.look(0, 10);
  ASSERT_TRUE(watch.latest());
  EXPECT_EQ(watch.latest()->name, "Fake H200 1");
  EXPECT_EQ(watch.take().samples, 0);
  watch.look(50, 10.5);  // too soon
  EXPECT_EQ(watch.take().joules, 0);
  watch.look(100, 11);
  const Energy first = watch.take();
  EXPECT_DOUBLE_EQ(first.joules, 1.5);
  EXPECT_DOUBLE_EQ(first.samples, 100);
  EXPECT_EQ(watch.take().joules, 0);
  watch.look(150, 12.5);
  watch.look(250, 14);
  const Energy both = watch.take();
  EXPECT_DOUBLE_EQ(both.joules, 3);
  EXPECT_DOUBLE_EQ(both.samples, 150);
}

TEST(GpuWatch, has_nothing_to_say_without_a_gpu_or_its_energy) {
  for (auto& watch : {GpuWatch(""), GpuWatch("0000:9b:00.0", "libthere-is-no-such.so.1")}) EXPECT_FALSE(watch.latest());
  GpuWatch of_an_old_gpu("0000:1b:00.0", DTRAIN_FAKE_NVML);
  of_an_old_gpu.look(0, 1);
  of_an_old_gpu.look(100, 3);
  EXPECT_TRUE(of_an_old_gpu.latest());
  EXPECT_EQ(of_an_old_gpu.take().samples, 0);
}

}  // namespace
}  // namespace dtrain::launch
