#include "runtime/device/gpu_monitor.hpp"

#include <algorithm>
#include <array>
#include <cctype>

#include <dlfcn.h>
#include <fmt/format.h>

namespace dtrain {

namespace {

// NVML's C interface, as far as it is used here: its ABI has been stable for ten years.
using Device = void*;
struct Memory {
  unsigned long long total, free, used;
};
struct Utilization {
  unsigned int gpu, memory;
};
struct Pci {
  std::array<char, 16> legacy_bus_id;
  unsigned int domain, bus, device, id, subsystem;
  std::array<char, 32> bus_id;
};
union Value {
  double number;
  unsigned int as_unsigned;
  unsigned long long as_long;
};
struct Field {
  unsigned int id, scope;
  long long timestamp, latency;
  int type, status;
  Value value;
};
constexpr int success = 0;
constexpr unsigned most_nvlinks = 18;
constexpr unsigned speed_of_link = 164, speed_of_all_links = 90;  // fields, in MB/s
constexpr int other_end_is_gpu = 0, other_end_is_switch = 2;
/// Where the driver does not say: NVLink 2 to 4 carry 25 GB/s each.
constexpr double usual_nvlink_rate = 25e9;

std::string normalized(std::string id) {
  std::transform(id.begin(), id.end(), id.begin(), [](unsigned char c) { return std::toupper(c); });
  const auto colon = id.find(':');
  if (colon == std::string::npos) return id;
  return id.substr(std::min(id.find_first_not_of('0'), colon));
}

/// A function of the library, as whoever takes it declares it.
struct Symbol {
  void* address;
  template <class F>
  operator F*() const {  // NOLINT(google-explicit-constructor)
    return reinterpret_cast<F*>(address);
  }
};

struct Close {
  void operator()(void* library) const noexcept { dlclose(library); }
};

}  // namespace

bool same_bus_id(const std::string& a, const std::string& b) {
  return normalized(a) == normalized(b);
}

struct GpuMonitor::State {
  std::unique_ptr<void, Close> library;
  std::string why_not, driver;
  bool begun = false;

  int (*init)() = symbol("nvmlInit_v2");
  int (*shutdown)() = symbol("nvmlShutdown");
  const char* (*error_string)(int) = symbol("nvmlErrorString");
  int (*driver_version)(char*, unsigned) = symbol("nvmlSystemGetDriverVersion");
  int (*count)(unsigned*) = symbol("nvmlDeviceGetCount_v2");
  int (*handle)(unsigned, Device*) = symbol("nvmlDeviceGetHandleByIndex_v2");
  int (*name)(Device, char*, unsigned) = symbol("nvmlDeviceGetName");
  int (*pci)(Device, Pci*) = symbol("nvmlDeviceGetPciInfo_v3");
  int (*memory)(Device, Memory*) = symbol("nvmlDeviceGetMemoryInfo");
  int (*utilization)(Device, Utilization*) = symbol("nvmlDeviceGetUtilizationRates");
  int (*energy)(Device, unsigned long long*) = symbol("nvmlDeviceGetTotalEnergyConsumption");
  int (*power)(Device, unsigned*) = symbol("nvmlDeviceGetPowerUsage");
  int (*temperature)(Device, int, unsigned*) = symbol("nvmlDeviceGetTemperature");
  int (*uuid)(Device, char*, unsigned) = symbol("nvmlDeviceGetUUID");
  int (*link_state)(Device, unsigned, int*) = symbol("nvmlDeviceGetNvLinkState");
  int (*link_other_end)(Device, unsigned, int*) = symbol("nvmlDeviceGetNvLinkRemoteDeviceType");
  int (*link_pci)(Device, unsigned, Pci*) = symbol("nvmlDeviceGetNvLinkRemotePciInfo_v2");
  int (*fields)(Device, int, Field*) = symbol("nvmlDeviceGetFieldValues");
  int (*pcie_generation)(Device, unsigned*) = symbol("nvmlDeviceGetMaxPcieLinkGeneration");
  int (*pcie_lanes)(Device, unsigned*) = symbol("nvmlDeviceGetMaxPcieLinkWidth");

  explicit State(const char* file) : library(dlopen(file, RTLD_NOW | RTLD_LOCAL)) {
    if (!library) {
      why_not = fmt::format("{} cannot be loaded", file);
      return;
    }
    if (!init || !shutdown || !count || !handle) {
      why_not = fmt::format("{} lacks what every NVML has", file);
      return;
    }
    if (const int status = init(); status != success) {
      why_not = fmt::format("NVML: {}", error_string ? error_string(status) : fmt::format("error {}", status).c_str());
      return;
    }
    begun = true;
    std::array<char, 96> text{};
    if (driver_version && driver_version(text.data(), text.size()) == success) driver = text.data();
  }

  ~State() {
    if (begun) shutdown();
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  /// Null where the library lacks it.
  Symbol symbol(const char* of) const { return {library ? dlsym(library.get(), of) : nullptr}; }

  std::string bus_id_of(Device device) const {
    Pci info{};
    return pci && pci(device, &info) == success ? std::string(info.bus_id.data()) : std::string();
  }
  GpuReading read(Device device) const {
    GpuReading r;
    std::array<char, 96> text{};
    if (name && name(device, text.data(), text.size()) == success) r.name = text.data();
    r.bus_id = bus_id_of(device);
    text = {};
    if (uuid && uuid(device, text.data(), text.size()) == success) r.uuid = text.data();
    Memory bytes{};
    if (memory && memory(device, &bytes) == success) r.memory_total = bytes.total, r.memory_used = bytes.used;
    Utilization rates{};
    if (utilization && utilization(device, &rates) == success) r.utilization = static_cast<int>(rates.gpu);
    unsigned long long millijoules = 0;
    if (energy && energy(device, &millijoules) == success) r.joules = static_cast<double>(millijoules) * 1e-3;
    unsigned value = 0;
    if (power && power(device, &value) == success) r.watts = static_cast<double>(value) * 1e-3;
    if (temperature && temperature(device, 0, &value) == success) r.celsius = static_cast<int>(value);
    return r;
  }
  double link_rate(Device device, unsigned link) const {
    if (!fields) return usual_nvlink_rate;
    // Old drivers know the first field only, and new ones only the second.
    for (const unsigned id : {speed_of_link, speed_of_all_links}) {
      Field field{};
      field.id = id;
      field.scope = id == speed_of_link ? link : 0;
      if (fields(device, 1, &field) == success && field.status == success && field.value.as_unsigned > 0)
        return field.value.as_unsigned * 1e6;
    }
    return usual_nvlink_rate;
  }
  GpuLinks links_of(Device device) const {
    GpuLinks out;
    for (unsigned i = 0; link_state && i < most_nvlinks; ++i) {
      int up = 0, other_end = other_end_is_switch;
      if (link_state(device, i, &up) != success || up == 0) continue;
      if (link_other_end && link_other_end(device, i, &other_end) != success) continue;
      GpuLinks::NvLink link{other_end == other_end_is_switch, {}, link_rate(device, i)};
      Pci pci_of_other{};
      if (other_end == other_end_is_gpu && link_pci && link_pci(device, i, &pci_of_other) == success)
        link.bus_id = pci_of_other.bus_id.data();
      out.nvlinks.push_back(std::move(link));
    }
    unsigned value = 0;
    if (pcie_generation && pcie_generation(device, &value) == success) out.pcie_generation = static_cast<int>(value);
    if (pcie_lanes && pcie_lanes(device, &value) == success) out.pcie_lanes = static_cast<int>(value);
    return out;
  }
  template <class Visit>
  void each(Visit visit) const {
    unsigned devices = 0;
    if (!begun || count(&devices) != success) return;
    for (unsigned i = 0; i < devices; ++i) {
      Device device = nullptr;
      if (handle(i, &device) == success) visit(device);
    }
  }
  /// Null where there is none.
  Device find(const std::string& bus_id) const {
    Device found = nullptr;
    if (bus_id.empty()) return found;
    each([&](Device device) {
      if (found == nullptr && same_bus_id(bus_id_of(device), bus_id)) found = device;
    });
    return found;
  }
};

GpuMonitor::GpuMonitor(const char* library) : state_(std::make_unique<State>(library)) {}
GpuMonitor::~GpuMonitor() = default;
GpuMonitor::GpuMonitor(GpuMonitor&&) noexcept = default;
GpuMonitor& GpuMonitor::operator=(GpuMonitor&&) noexcept = default;

const std::string& GpuMonitor::why_not() const noexcept {
  return state_->why_not;
}
const std::string& GpuMonitor::driver() const noexcept {
  return state_->driver;
}

std::vector<GpuReading> GpuMonitor::read_all() const {
  std::vector<GpuReading> all;
  state_->each([&](Device device) { all.push_back(state_->read(device)); });
  return all;
}

std::optional<GpuLinks> GpuMonitor::links(const std::string& bus_id) const {
  const Device device = state_->find(bus_id);
  return device == nullptr ? std::nullopt : std::optional(state_->links_of(device));
}

double GpuLinks::pcie_rate() const noexcept {
  // After encoding, a lane.
  constexpr std::array<double, 7> rates{0, 0.25e9, 0.5e9, 0.985e9, 1.969e9, 3.938e9, 7.563e9};
  const auto last = static_cast<int>(rates.size()) - 1;
  return rates[static_cast<std::size_t>(std::clamp(pcie_generation, 0, last))] * pcie_lanes;
}

std::optional<GpuReading> GpuMonitor::read(const std::string& bus_id) const {
  const Device device = state_->find(bus_id);
  return device == nullptr ? std::nullopt : std::optional(state_->read(device));
}

}  // namespace dtrain
