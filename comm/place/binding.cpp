#include "comm/place/binding.hpp"

#include <charconv>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <sched.h>

namespace dtrain::comm {

namespace {

// Room for 8192 cpus, beyond glibc's fixed set of 1024.
struct CpuMask {
  static constexpr int cpus = 8192;
  cpu_set_t bits[cpus / CPU_SETSIZE]{};
  static constexpr std::size_t bytes = sizeof bits;
  CpuMask() { CPU_ZERO_S(bytes, bits); }
  bool get() { return sched_getaffinity(0, bytes, bits) == 0; }
  bool set(pid_t thread = 0) const { return sched_setaffinity(thread, bytes, bits) == 0; }
};

CpuMask mask_of(const Cores& cores) noexcept {
  CpuMask mask;
  for (const auto& core : cores) {
    for (const int cpu : core) CPU_SET_S(static_cast<std::size_t>(cpu), CpuMask::bytes, mask.bits);
  }
  return mask;
}

int topology(int cpu, const char* what, int otherwise) {
  std::ifstream file(fmt::format("/sys/devices/system/cpu/cpu{}/topology/{}", cpu, what));
  int value = otherwise;
  return file >> value ? value : otherwise;
}

Cores cores_of(const CpuMask& mask) {
  std::map<std::pair<int, int>, std::vector<int>> by_core;
  for (int cpu = 0; cpu < CpuMask::cpus; ++cpu) {
    if (!CPU_ISSET_S(static_cast<std::size_t>(cpu), CpuMask::bytes, mask.bits)) continue;
    by_core[{topology(cpu, "physical_package_id", 0), topology(cpu, "core_id", cpu)}].push_back(cpu);
  }
  Cores out;
  for (auto& [core, cpus] : by_core) out.push_back(std::move(cpus));
  return out;
}

}  // namespace

Cores allowed_cores() {
  CpuMask mask;
  return mask.get() ? cores_of(mask) : Cores{};
}

Cores available_cores() {
  CpuMask before, all;
  if (!before.get()) return {};
  // The kernel cuts a mask of all cpus down to the cpuset: the only way to see it in every kind of container.
  for (int cpu = 0; cpu < CpuMask::cpus; ++cpu) CPU_SET_S(static_cast<std::size_t>(cpu), CpuMask::bytes, all.bits);
  CpuMask permitted = before;
  if (all.set()) {
    permitted.get();
    before.set();
  }
  return cores_of(permitted);
}

bool bind_to(const Cores& cores) noexcept {
  return mask_of(cores).set();
}

bool bind_all_threads_to(const Cores& cores) {
  const CpuMask mask = mask_of(cores);
  if (!mask.set()) return false;
  std::error_code ignored;  // without /proc the others stay where they are
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task", ignored)) {
    pid_t id = 0;
    const std::string name = thread.path().filename().string();
    if (std::from_chars(name.data(), name.data() + name.size(), id).ec == std::errc{}) (void)mask.set(id);
  }
  return true;
}

int count_cpus(const Cores& cores) noexcept {
  std::size_t n = 0;
  for (const auto& core : cores) n += core.size();
  return static_cast<int>(n);
}

}  // namespace dtrain::comm
