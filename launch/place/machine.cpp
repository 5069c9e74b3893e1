#include "launch/place/machine.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <tuple>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

namespace dtrain::launch {

namespace fs = std::filesystem;

namespace {

// As /proc/cpuinfo spells them.
constexpr const char* known_instructions[] = {"sse4_2",      "avx",         "avx2",     "fma",      "avx_vnni",
                                              "avx512f",     "avx512bw",    "avx512vl", "avx512dq", "avx512_vnni",
                                              "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"};

std::string first_line(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

/// "value" of "key : value" and "key=value".
std::string value_of(const std::string& line) {
  const auto at = line.find_first_of(":=");
  if (at == std::string::npos) return {};
  std::string value = line.substr(at + 1);
  value.erase(0, value.find_first_not_of(" \t\""));
  value.erase(value.find_last_not_of(" \t\"\n") + 1);
  return value;
}

void read_cpus(const fs::path& root, Machine& m) {
  std::ifstream in(root / "proc/cpuinfo");
  std::set<std::string> packages;
  std::set<std::pair<std::string, std::string>> cores;
  std::string package = "0";
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("processor")) ++m.cpus;
    if (line.starts_with("model name") && m.cpu.empty()) m.cpu = value_of(line);
    if (line.starts_with("physical id")) packages.insert(package = value_of(line));
    if (line.starts_with("core id")) cores.insert({package, value_of(line)});
    if (line.starts_with("flags") && m.instructions.empty()) {
      std::istringstream words(value_of(line));
      std::set<std::string> flags;
      for (std::string word; words >> word;) flags.insert(word);
      for (const char* name : known_instructions)
        if (flags.contains(name)) m.instructions.emplace_back(name);
    }
  }
  m.sockets = std::max<int>(1, static_cast<int>(packages.size()));
  m.cores = cores.empty() ? m.cpus : static_cast<int>(cores.size());
}

void read_memory(const fs::path& root, Machine& m) {
  std::ifstream in(root / "proc/meminfo");
  for (std::string line; std::getline(in, line);) {
    const std::uint64_t bytes = std::strtoull(value_of(line).c_str(), nullptr, 10) * 1024;
    if (line.starts_with("MemTotal:")) m.memory = bytes;
    if (line.starts_with("MemAvailable:")) m.memory_available = bytes;
  }
}

// ---- control groups: versions 2 and 1; limits of all parents hold, too ---------------------------------------------

void use_limits(const fs::path& group, Machine& m) {
  const auto limit_memory = [&](const std::string& text) {
    if (text.empty() || text == "max") return;
    const std::uint64_t bytes = std::strtoull(text.c_str(), nullptr, 10);
    // Version 1 says "none" by a number near 2^63.
    if (bytes < std::uint64_t{1} << 62) m.memory_limit = std::min(m.memory_limit, bytes);
  };
  const auto limit_cpus = [&](double quota, double period) {
    if (quota <= 0 || period <= 0) return;
    m.cpu_quota = m.cpu_quota > 0 ? std::min(m.cpu_quota, quota / period) : quota / period;
  };
  std::istringstream both(first_line(group / "cpu.max"));
  double quota = 0, period = 0;
  if (both >> quota >> period) limit_cpus(quota, period);
  limit_cpus(std::strtod(first_line(group / "cpu.cfs_quota_us").c_str(), nullptr),
             std::strtod(first_line(group / "cpu.cfs_period_us").c_str(), nullptr));
  limit_memory(first_line(group / "memory.max"));
  limit_memory(first_line(group / "memory.limit_in_bytes"));
}

void read_groups(const fs::path& root, Machine& m) {
  std::ifstream in(root / "proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {  // "4:memory:/path", "0::/path"
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && controllers.find("cpu") == std::string::npos && controllers != "memory") continue;
    const fs::path mount = root / "sys/fs/cgroup" / controllers;
    // In a container the path may be that of the host, of which only the end, or nothing, is mounted here.
    fs::path group = fs::path(line.substr(second + 1)).relative_path();
    for (;; group = group.parent_path()) {
      use_limits(mount / group, m);
      if (group.empty()) break;
    }
  }
}

std::uint64_t limit_of(__rlimit_resource resource) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0) return 0;
  return limit.rlim_cur == RLIM_INFINITY ? Machine::unlimited : limit.rlim_cur;
}

std::pair<std::uint64_t, std::uint64_t> space_of(const fs::path& path) {
  struct statvfs s {};
  if (statvfs(path.c_str(), &s) != 0) return {0, 0};
  return {std::uint64_t{s.f_blocks} * s.f_frsize, std::uint64_t{s.f_bavail} * s.f_frsize};
}

}  // namespace

bool Machine::has(const std::string& instruction) const {
  return std::find(instructions.begin(), instructions.end(), instruction) != instructions.end();
}

Machine read_machine(const std::string& root_name) {
  const fs::path root = root_name.empty() ? "/" : root_name;
  Machine m;
  utsname names{};
  if (uname(&names) == 0) {
    m.host = names.nodename;
    m.kernel = names.release;
  }
  std::ifstream release(root / "etc/os-release");
  for (std::string line; std::getline(release, line);)
    if (line.starts_with("PRETTY_NAME=")) m.system = value_of(line);
  read_cpus(root, m);
  read_memory(root, m);
  read_groups(root, m);
  cpu_set_t mask;
  CPU_ZERO(&mask);
  m.allowed_cpus = sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : m.cpus;
  m.open_files = limit_of(RLIMIT_NOFILE);
  m.locked_memory = limit_of(RLIMIT_MEMLOCK);
  std::tie(m.shared_memory, m.shared_memory_free) = space_of(root / "dev/shm");
  std::error_code ignored;
  m.nvidia_driver = fs::exists(root / "proc/driver/nvidia/version", ignored);
  const fs::directory_iterator adapters(root / "sys/class/infiniband", ignored);
  m.infiniband = !ignored && begin(adapters) != end(adapters);
  return m;
}

Disk measure_disk(const std::string& directory, std::uint64_t bytes) {
  Disk disk;
  std::error_code ignored;
  fs::path at = fs::absolute(directory.empty() ? "." : directory, ignored).lexically_normal();
  while (!fs::exists(at, ignored) && at.has_relative_path()) at = at.parent_path();
  disk.directory = at.string();
  std::tie(disk.bytes, disk.free) = space_of(at);
  std::string name = (at / ".dtrain-doctor-XXXXXX").string();
  const int file = fs::is_directory(at, ignored) ? mkstemp(name.data()) : (errno = ENOTDIR, -1);
  if (file < 0) {
    disk.problem = std::strerror(errno);
    return disk;
  }
  unlink(name.c_str());
  const std::vector<char> block(1 << 20, 'd');
  const auto begin = std::chrono::steady_clock::now();
  for (std::uint64_t done = 0; done < bytes && disk.problem.empty();) {
    const ssize_t n = write(file, block.data(), std::min<std::uint64_t>(block.size(), bytes - done));
    if (n < 0 && errno != EINTR) disk.problem = std::strerror(errno);
    if (n > 0) done += static_cast<std::uint64_t>(n);
  }
  if (disk.problem.empty() && fsync(file) != 0) disk.problem = std::strerror(errno);
  close(file);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  if (disk.problem.empty()) disk.write_rate = static_cast<double>(bytes) / std::max(seconds.count(), 1e-9);
  return disk;
}

std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    std::string file = (folder.empty() ? "." : folder) + "/" + name;
    if (access(file.c_str(), X_OK) == 0 && fs::is_regular_file(file)) return file;
  }
  return {};
}

}  // namespace dtrain::launch
