// Signals that ask the run to stop (SIGTERM, SIGUSR1, SIGINT), received as data: no handler, nothing global.
// Built on the main thread before any other thread starts, so that every thread inherits the mask; asked at step
// boundaries.
#pragma once

#include <string>

namespace dtrain::launch {

class StopSignals {
 public:
  /// Blocks the signals for this thread and all it starts.
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// True from the first such signal on. Never blocks.
  bool pending() noexcept;
  /// "SIGTERM", once pending() was true.
  const std::string& name() const noexcept { return name_; }

 private:
  int descriptor_ = -1;
  std::string name_;
};

}  // namespace dtrain::launch
