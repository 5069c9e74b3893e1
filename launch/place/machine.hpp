// What the kernel says of this machine: processors, memory, limits, containers, disks.
// Plain facts; the functions read /proc and /sys (below `root`, so that tests may bring their own) and own nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dtrain::launch {

/// Bytes and counts; 0 where the kernel says nothing, `unlimited` where there is no limit.
struct Machine {
  static constexpr std::uint64_t unlimited = ~std::uint64_t{0};

  std::string host, kernel, system;  // "n1", "6.1.0", "Debian GNU/Linux 12"
  std::string cpu;                   // "Intel(R) Xeon(R) Platinum 8480+"
  int sockets = 0, cores = 0, cpus = 0;
  int allowed_cpus = 0;                   // of the affinity mask
  double cpu_quota = 0;                   // cpus that the container may use; 0: all
  std::vector<std::string> instructions;  // of those that matter here: "avx2", "avx512f", "amx_bf16", ...
  std::uint64_t memory = 0, memory_available = 0;
  std::uint64_t memory_limit = unlimited;  // of the container
  std::uint64_t open_files = 0, locked_memory = 0;
  std::uint64_t shared_memory = 0, shared_memory_free = 0;  // /dev/shm
  bool nvidia_driver = false, infiniband = false;

  bool has(const std::string& instruction) const;
};

Machine read_machine(const std::string& root = "");

/// A directory as a place for the files of a run. Where it does not exist, its nearest parent that does.
struct Disk {
  std::string directory;  // what was looked at
  std::string problem;    // empty, or why it cannot be written
  std::uint64_t bytes = 0, free = 0;
  double write_rate = 0;  // bytes/s of a sequential write with fsync; 0 where it cannot be written
};
/// Writes and removes a file of `bytes`.
Disk measure_disk(const std::string& directory, std::uint64_t bytes);

/// The program's path as a shell would find it; empty where it is not there.
std::string find_program(const std::string& name);

}  // namespace dtrain::launch
