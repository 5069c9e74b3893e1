// GpuMonitor: what NVIDIA's management library (NVML) says of the GPUs here: names, memory, utilization, energy.
// Owns the library, which is looked for at run time and may be missing: then there is nothing to see, and a reason.
// Used by one thread; a reading takes the driver up to some milliseconds.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace dtrain {

/// What a GPU says of itself now; nothing where it does not know.
struct GpuReading {
  std::string name, bus_id, uuid;
  std::optional<std::uint64_t> memory_total, memory_used;  // bytes
  std::optional<int> utilization;                          // % of the latest sampling period, in which any kernel ran
  std::optional<double> joules;                            // since the driver was loaded
  std::optional<double> watts;
  std::optional<int> celsius;
};

/// What a GPU is joined to; rates in bytes/s one way, 0 where it does not know.
struct GpuLinks {
  struct NvLink {
    bool to_switch = false;
    std::string bus_id;  // of the GPU at the other end, where it is one
    double rate = 0;
  };
  std::vector<NvLink> nvlinks;              // those that are up
  int pcie_generation = 0, pcie_lanes = 0;  // the best that GPU and slot can do: an idle GPU lowers what it uses
  double pcie_rate() const noexcept;
};

/// "00000000:1B:00.0" and "0000:1b:00.0" are one place.
bool same_bus_id(const std::string& a, const std::string& b);

class GpuMonitor {
 public:
  /// `library`: the file to load. Never throws for what is missing.
  explicit GpuMonitor(const char* library = "libnvidia-ml.so.1");
  ~GpuMonitor();
  GpuMonitor(GpuMonitor&&) noexcept;
  GpuMonitor& operator=(GpuMonitor&&) noexcept;
  GpuMonitor(const GpuMonitor&) = delete;
  GpuMonitor& operator=(const GpuMonitor&) = delete;

  /// Empty where NVML works.
  const std::string& why_not() const noexcept;
  /// "570.86.15"; empty where unknown.
  const std::string& driver() const noexcept;
  /// All that this process may see.
  std::vector<GpuReading> read_all() const;
  /// The one with this bus id, as CUDA writes it (upper or lower case, a domain of four or eight digits).
  std::optional<GpuReading> read(const std::string& bus_id) const;
  std::optional<GpuLinks> links(const std::string& bus_id) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dtrain
