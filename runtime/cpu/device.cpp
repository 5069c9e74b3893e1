#include "runtime/cpu/device.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include <fmt/format.h>
#include <sched.h>
#include <sys/mman.h>

#include "runtime/cpu/stream.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::cpu {

namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;

int allowed_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(CPU_COUNT(&set), 1);
}

/// "Intel Xeon Platinum 8480C": the first model name of /proc/cpuinfo without its trade marks.
std::string model_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (!line.starts_with("model name")) continue;
    const std::size_t colon = line.find(": ");
    if (colon == std::string::npos) break;
    std::string name = line.substr(colon + 2);
    for (const char* mark : {"(R)", "(TM)", "(tm)"})
      for (auto at = name.find(mark); at != std::string::npos; at = name.find(mark))
        name.erase(at, std::string_view(mark).size());
    return name;
  }
  return "unknown processor";
}

}  // namespace

CpuDevice::CpuDevice(int threads) : threads_(threads > 0 ? threads : allowed_threads()), kernels_(threads_) {}

std::string CpuDevice::name() const {
  return fmt::format("cpu ({}, {} thread{})", model_name(), threads_, threads_ == 1 ? "" : "s");
}

void* CpuDevice::allocate(std::size_t bytes) {
  // Whole huge pages for what spans several: fewer misses of the address cache in every pass over it.
  const std::size_t alignment = bytes >= 2 * huge_page ? huge_page : 64;
  const std::size_t rounded = (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  void* memory = rounded >= bytes ? std::aligned_alloc(alignment, rounded) : nullptr;
  if (!memory) {
    throw OutOfMemory(
        fmt::format("out of memory: the cpu has no {:.1f} MiB left", static_cast<double>(bytes) / (1 << 20)));
  }
  if (alignment == huge_page) madvise(memory, rounded, MADV_HUGEPAGE);  // only a hint
  return memory;
}

void CpuDevice::release(void* memory) noexcept {
  std::free(memory);
}

std::unique_ptr<Stream> CpuDevice::make_stream(StreamUse use) {
  switch (use) {
    case StreamUse::compute:
      return std::make_unique<InlineStream>();
    case StreamUse::communication:
      return std::make_unique<ThreadStream>("dtrain-comm");
    case StreamUse::copy:
      return std::make_unique<ThreadStream>("dtrain-copy");
  }
  throw BugError("unknown use of a stream");
}

std::unique_ptr<Event> CpuDevice::make_event() {
  return std::make_unique<CpuEvent>();
}

void CpuDevice::copy(void* dst, const void* src, std::size_t bytes, Stream& stream) {
  if (bytes > 0) stream.host(HostTask::of([=] { std::memcpy(dst, src, bytes); }));
}

void CpuDevice::zero(void* dst, std::size_t bytes, Stream& stream) {
  if (bytes > 0) stream.host(HostTask::of([=] { std::memset(dst, 0, bytes); }));
}

}  // namespace dtrain::cpu

namespace dtrain {

std::unique_ptr<Device> make_cpu_device(int threads) {
  return std::make_unique<cpu::CpuDevice>(threads);
}

}  // namespace dtrain
