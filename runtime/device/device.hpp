// Devices, streams, events and owned buffers: the same small vocabulary for cpu and cuda, chosen at run time.
// A Device outlives everything made from it; a Stream orders work, on the caller's thread (cpu compute), on a thread of
// its own (cpu communication) or on the GPU; a Buffer owns memory of one device.
#pragma once

#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "runtime/device/algorithm_choices.hpp"
#include "runtime/ops/op.hpp"
#include "runtime/tensor/tensor.hpp"

namespace dtrain {

struct UpdateRule;
struct UpdateArgs;
struct StateUpdateArgs;
struct ImageFormat;
struct ImageBatch;

enum class DeviceKind : std::uint8_t { cpu, cuda };

/// What a CUDA device may do for speed.
struct CudaOptions {
  bool tf32 = false;              // float32 products round their factors to TF32's 10 bits
  bool nondeterministic = false;  // algorithms whose bits differ from run to run are welcome
  bool own_norms = false;         // norms never go by a library's kernels, which may wait for the whole GPU at once
};

/// A point in a stream. Recorded by Stream::record, waited for by Stream::wait or the host. Reusable; never allocates
/// after creation.
class Event {
 public:
  virtual ~Event() = default;
  virtual bool done() const = 0;
  /// Blocks the calling host thread until the latest recording has been reached.
  virtual void synchronize() = 0;
  /// Of two events made by make_timer() whose latest recordings are done: seconds from that of `earlier` to this one's,
  /// on the clock of their streams.
  virtual double seconds_since(const Event& earlier) const = 0;
};

/// A number that only grows: host and streams raise it, and wait until it is there. The one way for a stream to wait
/// for the host that keeps no thread of a driver busy. Outlives the work that names it.
class Timeline {
 public:
  virtual ~Timeline() = default;
  virtual std::uint64_t reached() const noexcept = 0;
  /// From any thread.
  virtual void reach(std::uint64_t value) noexcept = 0;
  /// Blocks the calling host thread until the value is reached, for at most so long: whether it is.
  virtual bool wait(std::uint64_t value, double seconds) const = 0;
};

/// A host function with its arguments by value: small and trivially copyable, so that enqueueing allocates nothing.
struct HostTask {
  static constexpr std::size_t capacity = 128;
  void (*run)(void* arguments) = nullptr;
  alignas(16) std::byte arguments[capacity]{};

  template <class F>
  static HostTask of(F f) {
    static_assert(std::is_trivially_copyable_v<F> && sizeof(F) <= capacity);
    HostTask task;
    std::memcpy(task.arguments, &f, sizeof f);
    task.run = [](void* p) { (*static_cast<F*>(p))(); };
    return task;
  }
};

/// Work in order. Everything a stream is given runs after what it was given before.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual void record(Event&) = 0;
  /// Later work of this stream runs after the event. On the inline cpu stream this blocks the caller.
  virtual void wait(Event&) = 0;
  /// Runs a host function in stream order. An exception in it is kept and rethrown by synchronize() and by every later
  /// call.
  virtual void host(const HostTask&) = 0;
  /// Raises the timeline when all earlier work is done. Neither this nor await() can be recorded.
  virtual void reach(Timeline&, std::uint64_t value);
  /// Later work of this stream runs after the timeline has reached the value.
  virtual void await(Timeline&, std::uint64_t value);
  /// Blocks the calling thread until all work is done; rethrows what failed.
  virtual void synchronize() = 0;
  /// The vendor handle (cudaStream_t) or null on the cpu.
  virtual void* native() const noexcept { return nullptr; }
};

/// Work that a stream was given once and can be given again at the price of one call: a CUDA graph.
class Replay {
 public:
  virtual ~Replay() = default;
  virtual void launch(Stream&) = 0;
};

/// Compute streams of the cpu run inline on the caller; communication streams own a thread.
enum class StreamUse : std::uint8_t { compute, communication, copy };

/// Where device memory comes from: the device, or who needs it to be of a special kind.
class Memory {
 public:
  virtual ~Memory() = default;
  /// 64-byte aligned (cpu) or 256-byte aligned (cuda). Throws OutOfMemory with the size asked for.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void release(void*) noexcept = 0;
};

class Device : public Memory {
 public:
  virtual DeviceKind kind() const noexcept = 0;
  /// "cpu (Intel Xeon, 2 threads)", "cuda:0 (NVIDIA H200)"
  virtual std::string name() const = 0;
  /// True where streams run asynchronously, in memory that the host cannot touch; false where compute runs on
  /// the caller's thread and device memory is the host's.
  virtual bool asynchronous() const noexcept { return false; }
  /// Libraries that the calling thread uses next take this device for theirs.
  virtual void make_current() {}
  /// Host memory that copies to and from the device reach without a detour: pinned on cuda, the device's own on a cpu.
  virtual void* allocate_host(std::size_t bytes) { return allocate(bytes); }
  virtual void release_host(void* memory) noexcept { release(memory); }
  virtual std::unique_ptr<Stream> make_stream(StreamUse) = 0;
  virtual std::unique_ptr<Event> make_event() = 0;
  /// An event that knows when it was reached.
  virtual std::unique_ptr<Event> make_timer() { return make_event(); }
  virtual std::unique_ptr<Timeline> make_timeline();
  /// Records what `work` gives to this stream, and to others that wait for it and that it waits for again, without
  /// running it: addresses and arguments are fixed from then on, what the memory holds is not. Null, with `why_not`
  /// filled, where the device has no such thing or `work` does what cannot be recorded; none of it was given then.
  virtual std::unique_ptr<Replay> record(Stream&, const std::function<void()>& /*work*/, std::string& why_not) {
    why_not = "this device records nothing";
    return nullptr;
  }
  virtual void copy(void* dst, const void* src, std::size_t bytes, Stream&) = 0;
  virtual void zero(void* dst, std::size_t bytes, Stream&) = 0;
  /// Chooses algorithm, descriptors and layouts once. Throws DeviceError where the device cannot run the op.
  virtual std::unique_ptr<Kernel> prepare(const OpSpec&, std::span<const TensorDesc> in, const OpUse&) = 0;
  /// What prepare() has chosen by measurement so far, and what use() gave.
  virtual AlgorithmChoices choices() const { return {}; }
  /// From now on prepare() takes these, and measures only what they lack.
  virtual void use(const AlgorithmChoices&) {}
  /// One optimizer update of the range that `args` names, in place.
  virtual void update(const UpdateRule&, const UpdateArgs&, Stream&) = 0;
  /// Moves each kept state towards the mean of the step's statistics, in place: see update_math.hpp.
  virtual void update_states(const StateUpdateArgs&, Stream&) = 0;
  /// average += average_rate(decay, step) * (params - average), for `n` floats; nothing in a skipped step.
  virtual void average(float* average, const float* params, std::size_t n, double decay, const StepState& step,
                       Stream&) = 0;
  /// Sum of squares of `n` floats into partial[i] (double), one for each fixed block of norm_block floats, so that the
  /// total does not depend on how buckets or shards cut the buffer. All in device memory.
  virtual void sum_squares(const float* x, std::size_t n, double* partial, Stream&) = 0;
  /// Decides on the step's update: the norm of the mean gradient, clipping, whether a gradient is not finite; see
  /// step_math.hpp. Blocks are added in a fixed order.
  virtual void finish_gradients(const GradientArgs&, Stream&) = 0;
  /// After the step's updates: close_step() of step_math.hpp.
  virtual void finish_step(const FinishArgs&, Stream&) = 0;
  /// Gathers, augments and normalizes a micro batch of stored bytes; see image_load.hpp.
  virtual void load_images(const ImageFormat&, const ImageBatch&, Stream&) = 0;
  /// out[i] = parts[0][i] + (parts[1][i] + ... (+ parts.back()[i])) for begin <= i < end, innermost first. `out` may be
  /// the last part. The pointers are host memory and stay until the stream was there.
  virtual void add(std::span<const float* const> parts, float* out, std::size_t begin, std::size_t end, Stream&) = 0;
  /// f32 to bf16, to nearest with ties to even, or back.
  virtual void cast(Tensor from, Tensor to, Stream&) = 0;
  /// Bytes that can still be allocated, as far as the device can say: 0 where it cannot.
  virtual std::size_t free_memory() const { return 0; }
  /// Where the GPU sits, as NVML and CUDA write it: "00000000:1B:00.0". Empty on a cpu.
  virtual std::string bus_id() const { return {}; }
  /// Names what the host does next, for a profiler that looks on; see DeviceRange.
  virtual void push_range(const char* /*name*/) noexcept {}
  virtual void pop_range() noexcept {}
};

/// A named range of a profiler's timeline, as long as it lives.
class DeviceRange {
 public:
  DeviceRange(Device& device, const char* name) noexcept : device_(device) { device_.push_range(name); }
  ~DeviceRange() { device_.pop_range(); }
  DeviceRange(const DeviceRange&) = delete;
  DeviceRange& operator=(const DeviceRange&) = delete;

 private:
  Device& device_;
};

/// Floats a block of a norm.
inline constexpr std::size_t norm_block = 1024;

/// The device of this kind. Throws DeviceError (exit 6) that says why there is none. `threads` (cpu): compute threads,
/// 0 = all allowed.
std::unique_ptr<Device> make_device(DeviceKind, int ordinal = 0, int threads = 0, const CudaOptions& = {});
std::unique_ptr<Device> make_cpu_device(int threads);
/// Two definitions: runtime/cuda and the stub cuda_off.cpp.
std::unique_ptr<Device> make_cuda_device(int ordinal, const CudaOptions& = {});
/// Number of usable GPUs; 0 with `why_none` filled where there is none.
int cuda_device_count(std::string& why_none) noexcept;

/// Owns device memory.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Memory& memory, std::size_t bytes)
      : memory_(&memory), data_(bytes ? memory.allocate(bytes) : nullptr), bytes_(bytes) {}
  Buffer(Buffer&& o) noexcept
      : memory_(o.memory_), data_(std::exchange(o.data_, nullptr)), bytes_(std::exchange(o.bytes_, 0)) {}
  Buffer& operator=(Buffer&& o) noexcept {
    std::swap(memory_, o.memory_);
    std::swap(data_, o.data_);
    std::swap(bytes_, o.bytes_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (data_) memory_->release(data_);
  }
  void* data() const noexcept { return data_; }
  std::size_t bytes() const noexcept { return bytes_; }
  std::byte* at(std::size_t offset) const noexcept { return static_cast<std::byte*>(data_) + offset; }

 private:
  Memory* memory_ = nullptr;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace dtrain
