// The clock that a run is timed by.
// Free functions for any thread.
#pragma once

#include <chrono>
#include <ctime>

namespace dtrain::launch {

using Clock = std::chrono::steady_clock;

/// Seconds.
inline double since(Clock::time_point t) {
  return std::chrono::duration<double>(Clock::now() - t).count();
}
/// As comm/collective/reducer.hpp's seconds_now() counts them.
inline double seconds_of(Clock::time_point t) {
  return std::chrono::duration<double>(t.time_since_epoch()).count();
}
/// That the processor has spent on this process, on all its threads.
inline double processor_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

}  // namespace dtrain::launch
