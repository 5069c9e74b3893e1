// What a watchdog says, kept for a test to look at, and a wait for it.
// For one test's threads.
#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "comm/watch/watchdog.hpp"

namespace dtrain::comm::test {

// Far above what a loaded machine needs: nothing passes by waiting for so long.
inline constexpr std::chrono::milliseconds soon{10000};

inline bool wait_until(const std::function<bool()>& holds) {
  for (int i = 0; i < soon.count() / 5; ++i) {
    if (holds()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return holds();
}

/// Messages instead of an end of the process.
class Heard {
 public:
  Watchdog::Options options(double timeout, double warn = 8) {
    Watchdog::Options o;
    o.timeout_seconds = timeout;
    o.warn_seconds = warn;
    o.on_error = [this](const std::string& m) { add(errors_, m); };
    o.on_warning = [this](const std::string& m) { add(warnings_, m); };
    return o;
  }
  std::vector<std::string> errors() { return copy(errors_); }
  std::vector<std::string> warnings() { return copy(warnings_); }

 private:
  void add(std::vector<std::string>& to, const std::string& m) {
    const std::lock_guard lock(mutex_);
    to.push_back(m);
  }
  std::vector<std::string> copy(const std::vector<std::string>& of) {
    const std::lock_guard lock(mutex_);
    return of;
  }
  std::mutex mutex_;
  std::vector<std::string> errors_, warnings_;
};

}  // namespace dtrain::comm::test
