// The CUDA device's memory, and where its streams and events are made; they and its kernels lie in files of their own.
#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <nvtx3/nvToolsExt.h>

#include "runtime/cuda/device/cuda_kernels.hpp"
#include "runtime/cuda/device/streams.hpp"
#include "runtime/cuda/device/timeline.hpp"
#include "runtime/cuda/errors.hpp"
#include "runtime/device/device.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::cuda {

namespace {

cudaStream_t native_of(Stream& stream) {
  return static_cast<cudaStream_t>(stream.native());
}

/// Of a GPU that the calling thread's libraries use from now on. Throws DeviceError where it cannot be used.
CudaContext context_of(int ordinal, const CudaOptions& options) {
  check(cudaSetDevice(ordinal), "cannot use the CUDA device");
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, ordinal), "cannot read the CUDA device's properties");
  const int architecture = properties.major * 10 + properties.minor;
  const std::string why_not = unsupported(ordinal, properties.name, architecture);
  if (!why_not.empty()) throw DeviceError(why_not);
  return {ordinal, properties.name, architecture, properties.multiProcessorCount, properties.sharedMemPerBlockOptin,
          options};
}

class CudaDevice final : public Device {
 public:
  CudaDevice(int ordinal, const CudaOptions& options) : kernels_(*this, context_of(ordinal, options)) {}
  DeviceKind kind() const noexcept override { return DeviceKind::cuda; }
  bool asynchronous() const noexcept override { return true; }
  std::string name() const override { return fmt::format("cuda:{} ({})", context().ordinal, context().model); }

  void* allocate(std::size_t bytes) override {
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, bytes > 0 ? bytes : 1);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // not sticky: clear it
      throw OutOfMemory(
          fmt::format("out of memory: {} has no {:.1f} MiB left", name(), static_cast<double>(bytes) / (1 << 20)));
    }
    check(status, "cannot allocate CUDA memory");
    return memory;
  }
  void release(void* memory) noexcept override { cudaFree(memory); }
  void* allocate_host(std::size_t bytes) override {
    void* memory = nullptr;
    const cudaError_t status = cudaMallocHost(&memory, bytes > 0 ? bytes : 1);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // not sticky: clear it
      throw OutOfMemory(fmt::format("out of memory: the host has no {:.1f} MiB of pinned memory left",
                                    static_cast<double>(bytes) / (1 << 20)));
    }
    check(status, "cannot allocate pinned memory");
    return memory;
  }
  void release_host(void* memory) noexcept override { cudaFreeHost(memory); }
  std::unique_ptr<Stream> make_stream(StreamUse use) override { return make_cuda_stream(use); }
  std::unique_ptr<Event> make_event() override { return make_cuda_event(false); }
  std::unique_ptr<Event> make_timer() override { return make_cuda_event(true); }
  std::unique_ptr<Timeline> make_timeline() override { return make_cuda_timeline(); }
  void make_current() override { check(cudaSetDevice(context().ordinal), "cannot use the CUDA device"); }
  std::unique_ptr<Replay> record(Stream& stream, const std::function<void()>& work, std::string& why_not) override {
    return record_cuda_work(stream, work, why_not);
  }
  std::size_t free_memory() const override {
    std::size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) != cudaSuccess) cudaGetLastError();
    return free;
  }
  std::string bus_id() const override {
    char id[32] = {};
    if (cudaDeviceGetPCIBusId(id, sizeof id, context().ordinal) != cudaSuccess) cudaGetLastError();
    return id;
  }
  void push_range(const char* name) noexcept override { nvtxRangePushA(name); }
  void pop_range() noexcept override { nvtxRangePop(); }
  void copy(void* dst, const void* src, std::size_t bytes, Stream& stream) override {
    check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, native_of(stream)), "a CUDA copy");
  }
  void zero(void* dst, std::size_t bytes, Stream& stream) override {
    check(cudaMemsetAsync(dst, 0, bytes, native_of(stream)), "a CUDA memset");
  }
  Kernels& kernels() override { return kernels_; }

 private:
  const CudaContext& context() const noexcept { return kernels_.context(); }

  CudaKernels kernels_;
};

}  // namespace

}  // namespace dtrain::cuda

namespace dtrain {

int cuda_device_count(std::string& why_none) noexcept {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (status == cudaSuccess && count > 0) return count;
  try {
    int driver = 0, runtime = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
    if (cudaRuntimeGetVersion(&runtime) != cudaSuccess) runtime = 0;
    cudaGetLastError();
    why_none = cuda::no_device_text(status, driver, runtime);
  } catch (...) {
    why_none.clear();
  }
  return 0;
}

std::unique_ptr<Device> make_cuda_device(int ordinal, const CudaOptions& options) {
  std::string why;
  const int count = cuda_device_count(why);
  if (count == 0) throw DeviceError(fmt::format("there is no usable GPU ({}); use device: cpu", why));
  if (ordinal < 0 || ordinal >= count)
    throw DeviceError(fmt::format("GPU {} was asked for, but only {} can be seen here", ordinal, count));
  return std::make_unique<cuda::CudaDevice>(ordinal, options);
}

}  // namespace dtrain
