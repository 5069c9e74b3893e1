// The clock that a run is timed by.
// Free functions for any thread.
#pragma once

#include <chrono>

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

}  // namespace dtrain::launch
