// The CUDA device's memory, streams and events; its kernels lie in files of their own.
#include <atomic>
#include <mutex>
#include <vector>

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "runtime/cuda/op_kernels.hpp"
#include "runtime/cuda/update_ops.hpp"
#include "runtime/device.hpp"
#include "runtime/error.hpp"

namespace dtrain::cuda {

namespace {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw DeviceError(fmt::format("{}: {}", what, cudaGetErrorString(status)));
}

class CudaEvent final : public Event {
 public:
  CudaEvent() { check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cannot create a CUDA event"); }
  ~CudaEvent() override { cudaEventDestroy(event); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;
  bool done() const override { return cudaEventQuery(event) == cudaSuccess; }
  double seconds_since(const Event& earlier) const override {
    float milliseconds = 0;
    const auto* before = dynamic_cast<const CudaEvent*>(&earlier);
    if (!before) throw BugError("the time since an event of another device");
    check(cudaEventElapsedTime(&milliseconds, before->event, event), "reading the time between CUDA events");
    return static_cast<double>(milliseconds) * 1e-3;
  }
  void synchronize() override { check(cudaEventSynchronize(event), "waiting for a CUDA event"); }
  cudaEvent_t event = nullptr;
};

cudaEvent_t native_of(Event& event) {
  auto* own = dynamic_cast<CudaEvent*>(&event);
  if (!own) throw BugError("a CUDA stream was given the event of another device");
  return own->event;
}

class CudaStream final : public Stream {
 public:
  static constexpr std::size_t capacity = 256;  // host functions under way

  CudaStream() : tasks_(capacity) {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cannot create a CUDA stream");
    for (Slot& slot : tasks_) slot.owner = this;
  }
  ~CudaStream() override {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  void record(Event& event) override { check(cudaEventRecord(native_of(event), stream_), "recording a CUDA event"); }
  void wait(Event& event) override {
    rethrow();
    check(cudaStreamWaitEvent(stream_, native_of(event), 0), "waiting for a CUDA event");
  }
  void host(const HostTask& task) override {
    rethrow();
    if (submitted_ - finished_.load() == capacity) check(cudaStreamSynchronize(stream_), "waiting for a CUDA stream");
    Slot& slot = tasks_[submitted_ % capacity];
    slot.task = task;
    check(cudaLaunchHostFunc(stream_, run, &slot), "launching a host function");
    ++submitted_;
  }
  void synchronize() override {
    check(cudaStreamSynchronize(stream_), "waiting for a CUDA stream");
    rethrow();
  }
  void* native() const noexcept override { return stream_; }

 private:
  struct Slot {
    CudaStream* owner = nullptr;
    HostTask task;
  };
  static void CUDART_CB run(void* argument) {
    auto& slot = *static_cast<Slot*>(argument);
    CudaStream& self = *slot.owner;
    try {
      if (!self.failed_.load()) slot.task.run(slot.task.arguments);
    } catch (...) {
      const std::lock_guard lock(self.mutex_);
      self.failure_ = std::current_exception();
      self.failed_ = true;
    }
    ++self.finished_;
  }
  void rethrow() {
    if (!failed_.load()) return;
    const std::lock_guard lock(mutex_);
    std::rethrow_exception(failure_);
  }

  cudaStream_t stream_ = nullptr;
  std::vector<Slot> tasks_;
  std::uint64_t submitted_ = 0;
  std::atomic<std::uint64_t> finished_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::exception_ptr failure_;
};

cudaStream_t native_of(Stream& stream) {
  return static_cast<cudaStream_t>(stream.native());
}

class CudaDevice final : public Device {
 public:
  CudaDevice(int ordinal, const CudaOptions& options) {
    check(cudaSetDevice(ordinal), "cannot use the CUDA device");
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, ordinal), "cannot read the CUDA device's properties");
    context_ = {ordinal, properties.name, properties.major * 10 + properties.minor, properties.multiProcessorCount,
                properties.sharedMemPerBlockOptin};
    context_.options = options;
  }
  DeviceKind kind() const noexcept override { return DeviceKind::cuda; }
  bool asynchronous() const noexcept override { return true; }
  std::string name() const override { return fmt::format("cuda:{} ({})", context_.ordinal, context_.model); }

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
  std::unique_ptr<Stream> make_stream(StreamUse) override { return std::make_unique<CudaStream>(); }
  std::unique_ptr<Event> make_event() override { return std::make_unique<CudaEvent>(); }
  void copy(void* dst, const void* src, std::size_t bytes, Stream& stream) override {
    check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, native_of(stream)), "a CUDA copy");
  }
  void zero(void* dst, std::size_t bytes, Stream& stream) override {
    check(cudaMemsetAsync(dst, 0, bytes, native_of(stream)), "a CUDA memset");
  }
  std::unique_ptr<Kernel> prepare(const OpSpec& op, std::span<const TensorDesc> in) override {
    return make_kernel(context_, op, in);
  }
  AlgorithmChoices choices() const override { return context_.choices; }
  void use(const AlgorithmChoices& choices) override { context_.choices.merge(choices); }
  void update_states(const StateUpdateArgs& args, Stream& stream) override { flat_.update_states(args, stream); }
  void update(const UpdateRule& rule, const UpdateArgs& args, Stream& stream) override {
    flat_.update(rule, args, stream);
  }
  void average(float* average, const float* params, std::size_t n, double decay, const StepState& step,
               Stream& stream) override {
    FlatOps::average(average, params, n, decay, step, stream);
  }
  void sum_squares(const float* x, std::size_t n, double* partial, Stream& stream) override {
    FlatOps::sum_squares(x, n, partial, stream);
  }
  void finish_gradients(const GradientArgs& args, Stream& stream) override { FlatOps::finish_gradients(args, stream); }
  void finish_step(const FinishArgs& args, Stream& stream) override { FlatOps::finish_step(args, stream); }
  void load_images(const ImageFormat& format, const ImageBatch& batch, Stream& stream) override {
    FlatOps::load_images(format, batch, stream);
  }
  void add(std::span<const float* const> parts, float* out, std::size_t begin, std::size_t end,
           Stream& stream) override {
    FlatOps::add(parts, out, begin, end, stream);
  }
  void cast(Tensor from, Tensor to, Stream& stream) override { FlatOps::cast(from, to, stream); }

 private:
  CudaContext context_;
  FlatOps flat_{*this};
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
    why_none = status == cudaSuccess ? "CUDA sees no GPU" : cudaGetErrorString(status);
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
