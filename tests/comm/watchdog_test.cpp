#include "comm/watchdog.hpp"

#include <chrono>
#include <future>
#include <thread>

#include <gtest/gtest.h>

namespace dtrain::comm {
namespace {

using std::chrono::milliseconds;

struct Heard {
  std::promise<std::string> promise;
  std::future<std::string> future = promise.get_future();
  Watchdog::OnExpiry handler() {
    return [this](const std::string& message) { promise.set_value(message); };
  }
  bool within(milliseconds limit) { return future.wait_for(limit) == std::future_status::ready; }
};

TEST(Watchdog, names_rank_phase_and_step_at_the_deadline) {
  Heard heard;
  Watchdog watchdog(0, "h", 0.2, heard.handler());
  watchdog.beat("all_reduce", 17);
  ASSERT_TRUE(heard.within(milliseconds(10000)));
  EXPECT_NE(heard.future.get().find("rank 0 (host h) made no progress for 0 s in phase all_reduce of step 17"),
            std::string::npos);
}

TEST(Watchdog, is_silent_while_there_is_progress_or_a_pause) {
  Heard heard;
  Watchdog watchdog(0, "h", 1.0, heard.handler());
  for (std::uint64_t step = 0; step < 30; ++step) {
    watchdog.beat("step", step);
    std::this_thread::sleep_for(milliseconds(50));
  }
  watchdog.pause();
  EXPECT_FALSE(heard.within(milliseconds(1500)));
}

TEST(WatchdogDeathTest, prints_one_error_line_and_leaves_with_5) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        Watchdog watchdog(0, "h", 0.1);
        watchdog.beat("step", 3);
        std::this_thread::sleep_for(std::chrono::seconds(30));
      },
      testing::ExitedWithCode(5), "^error: rank 0 .host h. made no progress for .* in phase step of step 3; [^\n]*\n$");
}

}  // namespace
}  // namespace dtrain::comm
