// Devices, streams, events and owned buffers: the same small vocabulary for cpu and cuda, chosen at run time.
// A Device outlives everything made from it; a Stream orders work, on the caller's thread (cpu compute), on a thread of
// its own (cpu communication) or on the GPU; a Buffer owns memory of one device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace dtrain {

class Kernels;

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
  static constexpr std::size_t capacity = 192;
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
  /// What computes on this device: see runtime/ops/kernels.hpp. Ends with the device.
  virtual Kernels& kernels() = 0;
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

/// The device of this kind. Throws DeviceError (exit 6) that says why there is none. `threads` (cpu): compute threads,
/// 0 = all allowed.
std::unique_ptr<Device> make_device(DeviceKind, int ordinal = 0, int threads = 0, const CudaOptions& = {});
std::unique_ptr<Device> make_cpu_device(int threads);
/// Two definitions: runtime/cuda/device and the stub cuda_off.cpp.
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
