// Loaded into a program by CUDA's driver (CUDA_INJECTION64_PATH): when the program ends, DTRAIN_BUSY_FILE says in which
// share of a window before the end of its work the GPU was busy, by CUPTI's records of kernels, copies and memsets.
// CUPTI is looked up at run time. Its threads hand over records; the file is written by the thread that exits.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#include <cupti.h>
#include <dlfcn.h>

namespace {

constexpr std::size_t buffer_bytes = std::size_t{4} << 20;
// The window, before the last record's end: what comes behind the last step is not in it.
constexpr std::uint64_t window_begin = 1'500'000'000, window_end = 300'000'000;  // ns

struct Span {
  std::uint64_t begin, end;  // ns
};

struct Recorder {
  decltype(&cuptiActivityRegisterCallbacks) register_callbacks = nullptr;
  decltype(&cuptiActivityEnable) enable = nullptr;
  decltype(&cuptiActivityFlushAll) flush = nullptr;
  decltype(&cuptiActivityGetNextRecord) next = nullptr;
  std::mutex mutex;
  std::vector<Span> spans;
  std::string error;
};

/// Never destroyed: CUPTI may still call when the program ends.
Recorder& recorder() {
  static auto* const r = new Recorder;
  return *r;
}

void CUPTIAPI buffer_requested(std::uint8_t** buffer, std::size_t* size, std::size_t* most_records) {
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(64, buffer_bytes));
  *size = *buffer != nullptr ? buffer_bytes : 0;
  *most_records = 0;
}

template <class Record>
Span span_of(const CUpti_Activity* record) {
  const auto* r = reinterpret_cast<const Record*>(record);
  return {r->start, r->end};
}

void CUPTIAPI buffer_completed(CUcontext, std::uint32_t, std::uint8_t* buffer, std::size_t, std::size_t valid) {
  Recorder& r = recorder();
  const std::lock_guard lock(r.mutex);
  CUpti_Activity* record = nullptr;
  while (valid > 0 && r.next(buffer, valid, &record) == CUPTI_SUCCESS) {
    Span span{0, 0};
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) span = span_of<CUpti_ActivityKernel10>(record);
    if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) span = span_of<CUpti_ActivityMemcpy6>(record);
    if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) span = span_of<CUpti_ActivityMemset4>(record);
    if (span.end > span.begin) r.spans.push_back(span);
  }
  std::free(buffer);
}

struct Busy {
  double share = 0, seconds = 0, longest_gap = 0;  // of the window
  std::size_t records = 0;
};

Busy busy_of(std::vector<Span> spans) {
  Busy busy;
  if (spans.empty()) return busy;
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
  std::uint64_t last = 0;
  for (const Span& s : spans) last = std::max(last, s.end);
  const std::uint64_t first = spans.front().begin;
  const std::uint64_t begin = std::max(first, last > window_begin ? last - window_begin : 0);
  const std::uint64_t end = std::max(begin + 1, last - std::min(window_end, last));
  std::uint64_t at = begin, sum = 0, longest = 0;  // busy or not, up to `at` all is counted
  for (const Span& s : spans) {
    const std::uint64_t from = std::max(s.begin, at), to = std::min(s.end, end);
    if (s.end <= begin || s.begin >= end) continue;
    ++busy.records;
    if (from >= to) continue;
    longest = std::max(longest, from - at);
    sum += to - from;
    at = to;
  }
  longest = std::max(longest, end - std::min(at, end));
  busy.seconds = static_cast<double>(end - begin) * 1e-9;
  busy.share = static_cast<double>(sum) / static_cast<double>(end - begin);
  busy.longest_gap = static_cast<double>(longest) * 1e-9;
  return busy;
}

void write_file() {
  Recorder& r = recorder();
  if (r.flush != nullptr) r.flush(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  const char* const path = std::getenv("DTRAIN_BUSY_FILE");
  std::FILE* const file = path != nullptr ? std::fopen(path, "w") : nullptr;
  if (file == nullptr) return;
  const std::lock_guard lock(r.mutex);
  const Busy busy = busy_of(r.spans);
  (void)std::fprintf(
      file, R"({"busy": %.6f, "window_seconds": %.6f, "longest_gap_seconds": %.9f, "records": %zu, "error": "%s"})",
      busy.share, busy.seconds, busy.longest_gap, busy.records, r.error.c_str());
  (void)std::fclose(file);
}

template <class F>
void find(void* library, F*& function, const char* name) {
  function = reinterpret_cast<F*>(dlsym(library, name));
}

std::string start() {
  Recorder& r = recorder();
  void* library = nullptr;
  for (const char* name : {"libcupti.so.13", "libcupti.so"})
    if (library == nullptr) library = dlopen(name, RTLD_NOW);
  if (library == nullptr) return "libcupti.so.13 is not to be found";
  find(library, r.register_callbacks, "cuptiActivityRegisterCallbacks");
  find(library, r.enable, "cuptiActivityEnable");
  find(library, r.flush, "cuptiActivityFlushAll");
  find(library, r.next, "cuptiActivityGetNextRecord");
  if (r.register_callbacks == nullptr || r.enable == nullptr || r.flush == nullptr || r.next == nullptr)
    return "libcupti lacks what it should have";
  if (const int status = r.register_callbacks(buffer_requested, buffer_completed); status != CUPTI_SUCCESS)
    return "CUPTI takes no callbacks: error " + std::to_string(status);
  for (const auto kind :
       {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMSET})
    if (const int status = r.enable(kind); status != CUPTI_SUCCESS)
      return "CUPTI records nothing: error " + std::to_string(status);
  return {};
}

}  // namespace

/// What the driver calls. NOLINTNEXTLINE(readability-identifier-naming)
extern "C" __attribute__((visibility("default"))) int InitializeInjection() {
  recorder().error = start();
  (void)std::atexit(write_file);
  return 1;
}
