// GpuWatch: the energy, memory and utilization of the GPU that a rank computes on, for its reports.
// Owns the monitor; used on the training thread. A reading costs the driver's time, so there is one a second at most.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "launch/report/run_files.hpp"
#include "runtime/device/gpu_monitor.hpp"

namespace dtrain::launch {

class GpuWatch {
 public:
  /// Where `bus_id` is empty or NVML is missing there is never anything to see.
  explicit GpuWatch(std::string bus_id, const char* library = "libnvidia-ml.so.1");

  /// Reads, unless that was less than a second ago. `samples`: that this GPU has trained with so far; `now`: in seconds
  /// of any steady clock.
  void look(std::int64_t samples, double now);
  /// What it said last.
  const std::optional<GpuReading>& latest() const noexcept { return latest_; }
  /// From the reading at the call before (at first: from the first one) to the latest. Nothing where the GPU does not
  /// count its energy.
  Energy take() noexcept;

 private:
  struct Mark {
    double joules = 0;
    std::int64_t samples = 0;
  };
  std::string bus_id_;
  std::optional<GpuMonitor> monitor_;
  double looked_ = 0;
  std::optional<GpuReading> latest_;
  std::optional<Mark> taken_, last_;
};

}  // namespace dtrain::launch
