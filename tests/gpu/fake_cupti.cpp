// A libcupti.so.13 that records nothing, and hands over one buffer when it is asked for all: kernels of 90 of each 100
// ms, over three seconds; a copy beside each, and a memset of 5 ms behind it.
#include <cstdint>
#include <cstring>

#include <cupti.h>

namespace {
CUpti_BuffersCallbackRequestFunc requested;
CUpti_BuffersCallbackCompleteFunc completed;
constexpr std::uint64_t ms = 1'000'000, rounds = 30;
std::uint64_t read;
CUpti_ActivityKernel10 kernel;
CUpti_ActivityMemcpy6 copy;
CUpti_ActivityMemset4 set;
}  // namespace

extern "C" {

CUptiResult CUPTIAPI cuptiActivityRegisterCallbacks(CUpti_BuffersCallbackRequestFunc r,
                                                    CUpti_BuffersCallbackCompleteFunc c) {
  requested = r;
  completed = c;
  return CUPTI_SUCCESS;
}
CUptiResult CUPTIAPI cuptiActivityEnable(CUpti_ActivityKind) {
  return CUPTI_SUCCESS;
}
CUptiResult CUPTIAPI cuptiActivityFlushAll(std::uint32_t) {
  std::uint8_t* buffer = nullptr;
  std::size_t size = 0, most = 0;
  requested(&buffer, &size, &most);
  completed(nullptr, 0, buffer, size, 1);
  return CUPTI_SUCCESS;
}
CUptiResult CUPTIAPI cuptiActivityGetNextRecord(std::uint8_t*, std::size_t, CUpti_Activity** record) {
  const std::uint64_t round = read / 3, begin = 7'000 * ms + round * 100 * ms;
  if (round >= rounds) return CUPTI_ERROR_MAX_LIMIT_REACHED;
  switch (read++ % 3) {
    case 0:
      kernel.kind = CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL;
      kernel.start = begin, kernel.end = begin + 90 * ms;
      *record = reinterpret_cast<CUpti_Activity*>(&kernel);
      break;
    case 1:
      copy.kind = CUPTI_ACTIVITY_KIND_MEMCPY;
      copy.start = begin + 10 * ms, copy.end = begin + 20 * ms;
      *record = reinterpret_cast<CUpti_Activity*>(&copy);
      break;
    default:
      set.kind = CUPTI_ACTIVITY_KIND_MEMSET;
      set.start = begin + 90 * ms, set.end = begin + 95 * ms;
      *record = reinterpret_cast<CUpti_Activity*>(&set);
  }
  return CUPTI_SUCCESS;
}
}
