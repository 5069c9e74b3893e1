#include "runtime/cuda/device/timeline.hpp"

#include <atomic>
#include <chrono>
#include <thread>

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include "runtime/cuda/errors.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::cuda {

namespace {

/// The driver's calls. The runtime has none of them, and a program that links with the driver starts on no other host.
struct StreamMemory {
  using Call = CUresult (*)(CUstream, CUdeviceptr, cuuint64_t, unsigned);
  Call write = nullptr, wait = nullptr;

  /// Throws DeviceError where the driver lacks them.
  StreamMemory() {
    void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);  // for the process's life, as CUDA's runtime
    if (driver != nullptr) {
      write = reinterpret_cast<Call>(dlsym(driver, "cuStreamWriteValue64_v2"));
      wait = reinterpret_cast<Call>(dlsym(driver, "cuStreamWaitValue64_v2"));
    }
    if (write == nullptr || wait == nullptr)
      throw DeviceError(
          "this CUDA driver has no streams that wait for the host (cuStreamWaitValue64); use a newer one");
  }
};

const StreamMemory& stream_memory() {
  static const StreamMemory calls;
  return calls;
}

void check_driver(CUresult status, const char* what) {
  if (status != CUDA_SUCCESS)
    throw DeviceError(fmt::format("{}: error {} of the CUDA driver", what, static_cast<int>(status)));
}

class CudaTimeline final : public Timeline {
 public:
  CudaTimeline() {
    void* memory = nullptr;
    check(cudaHostAlloc(&memory, sizeof(Value), cudaHostAllocMapped | cudaHostAllocPortable),
          "cannot allocate pinned memory");
    value_ = new (memory) Value(0);
    void* seen = nullptr;
    const cudaError_t status = cudaHostGetDevicePointer(&seen, memory, 0);
    if (status != cudaSuccess) cudaFreeHost(memory);
    check(status, "cannot map pinned memory");
    on_device_ = reinterpret_cast<CUdeviceptr>(seen);
  }
  ~CudaTimeline() override { cudaFreeHost(value_); }
  CudaTimeline(const CudaTimeline&) = delete;
  CudaTimeline& operator=(const CudaTimeline&) = delete;

  std::uint64_t reached() const noexcept override { return value_->load(std::memory_order_acquire); }
  void reach(std::uint64_t value) noexcept override { value_->store(value, std::memory_order_release); }
  bool wait(std::uint64_t value, double seconds) const override {
    // Nobody tells the host when the GPU has written: it looks, without a pause for as long as a short copy takes, and
    // leaves the core to the computation then.
    using Clock = std::chrono::steady_clock;
    constexpr auto spin = std::chrono::microseconds(50), nap = std::chrono::microseconds(20);
    const auto begin = Clock::now();
    while (reached() < value) {
      const auto passed = Clock::now() - begin;
      if (std::chrono::duration<double>(passed).count() > seconds) return false;
      if (passed > spin) std::this_thread::sleep_for(nap);
    }
    return true;
  }
  CUdeviceptr on_device() const noexcept { return on_device_; }
  const StreamMemory& driver() const noexcept { return driver_; }

 private:
  using Value = std::atomic<std::uint64_t>;
  static_assert(Value::is_always_lock_free && sizeof(Value) == sizeof(cuuint64_t));
  const StreamMemory& driver_ = stream_memory();
  Value* value_ = nullptr;
  CUdeviceptr on_device_ = 0;
};

CudaTimeline& own(Timeline& timeline) {
  auto* own = dynamic_cast<CudaTimeline*>(&timeline);
  if (!own) throw BugError("a CUDA stream was given the timeline of another device");
  return *own;
}

}  // namespace

std::unique_ptr<Timeline> make_cuda_timeline() {
  return std::make_unique<CudaTimeline>();
}

void reach_on(void* stream, Timeline& timeline, std::uint64_t value) {
  const CudaTimeline& to = own(timeline);
  check_driver(to.driver().write(static_cast<CUstream>(stream), to.on_device(), value, CU_STREAM_WRITE_VALUE_DEFAULT),
               "a stream's write to memory");
}

void await_on(void* stream, Timeline& timeline, std::uint64_t value) {
  const CudaTimeline& on = own(timeline);
  check_driver(on.driver().wait(static_cast<CUstream>(stream), on.on_device(), value, CU_STREAM_WAIT_VALUE_GEQ),
               "a stream's wait for memory");
}

}  // namespace dtrain::cuda
