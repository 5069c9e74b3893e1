// A GPU without a GPU: a device whose streams work on threads of their own, some time after they were given the work,
// in memory that the host cannot touch. It also records work and replays it, with the rules of a CUDA graph's capture.
// Wraps the CPU device (or another that works inline), which it owns. Addresses it hands out lie outside the address
// space, and only its own work knows where they are; new memory is full of NaN. Counts what a step must not do.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/device/device.hpp"

namespace dtrain::test {

class AsyncDevice final : public Device {
 public:
  struct Options {
    int copy_delay_us = 0, compute_delay_us = 0;  // before each piece of work
    bool records = true;
    std::size_t memory_limit = 0;  // 0: none
    std::string bus_id = {};
    std::string model;      // "async H1": prepare() chooses an algorithm for each op of this device; empty: none
    std::string algorithm;  // which it finds the quickest
    std::function<std::unique_ptr<Device>()> near;  // what it wraps; by default the CPU device with one thread
  };
  AsyncDevice() : AsyncDevice(Options()) {}
  explicit AsyncDevice(const Options&);
  ~AsyncDevice() override;

  // ---- for tests
  /// Streams do nothing more until go().
  void hold();
  void go();
  /// The compute stream's work number `n` from now on fails, as a kernel's fault does.
  void fail_after(int n) { fail_in_ = n; }
  /// The host has waited for a stream, or for an event that had not been reached.
  std::atomic<int> stream_waits{0}, event_waits{0};
  std::atomic<int> recordings{0}, replays{0}, allocations{0}, kernel_calls{0}, packs{0};
  int measured = 0;  // algorithms, since no choice was known
  /// Where device memory really is, and where it seems to be.
  static void* moved(void* memory);
  static void* real(const void* memory);
  template <class T>
  static T* real(T* memory) {
    return static_cast<T*>(real(static_cast<const void*>(memory)));
  }

  /// Is what this stream is given part of a recording?
  static bool recorded(const Stream&);

  // ---- the device
  DeviceKind kind() const noexcept override { return DeviceKind::cuda; }
  std::string name() const override { return "async"; }
  bool asynchronous() const noexcept override { return true; }
  void* allocate(std::size_t bytes) override;
  void release(void*) noexcept override;
  void* allocate_host(std::size_t bytes) override { return near_->allocate(bytes); }
  void release_host(void* memory) noexcept override { near_->release(memory); }
  std::unique_ptr<Stream> make_stream(StreamUse) override;
  std::unique_ptr<Event> make_event() override;
  std::unique_ptr<Replay> record(Stream&, const std::function<void()>& work, std::string& why_not) override;
  void copy(void* dst, const void* src, std::size_t bytes, Stream&) override;
  void zero(void* dst, std::size_t bytes, Stream&) override;
  Kernels& kernels() override { return *kernels_; }
  std::size_t free_memory() const override;
  std::string bus_id() const override { return options_.bus_id; }

 private:
  friend class AsyncStream;
  friend class AsyncEvent;
  friend class AsyncKernels;
  struct Recording;
  class Replayed;
  Device& near() noexcept { return *near_; }
  /// Before each piece of work, on the stream's thread.
  void pass_gate(StreamUse);
  void forbid_while_recording(const char* what) const;

  const Options options_;
  std::unique_ptr<Device> near_;
  std::unique_ptr<Stream> inline_;  // runs the CPU device's calls at once, on whichever thread works
  std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  std::atomic<int> fail_in_{0};
  Recording* recording_ = nullptr;
  std::size_t used_ = 0;
  std::map<void*, std::size_t> sizes_;
  std::unique_ptr<Kernels> kernels_;
};

}  // namespace dtrain::test
