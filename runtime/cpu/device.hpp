// The CPU as a Device: oneDNN and vectorised kernels with a fixed number of threads.
// Owns no memory but what it hands out; a compute stream runs inline on whichever thread calls it.
#pragma once

#include <memory>
#include <string>

#include "runtime/cpu/kernels.hpp"
#include "runtime/device/device.hpp"

namespace dtrain::cpu {

class CpuDevice final : public Device {
 public:
  /// `threads`: 0 = as many as this process may run on.
  explicit CpuDevice(int threads);

  DeviceKind kind() const noexcept override { return DeviceKind::cpu; }
  std::string name() const override;
  void* allocate(std::size_t bytes) override;
  void release(void*) noexcept override;
  std::unique_ptr<Stream> make_stream(StreamUse) override;
  std::unique_ptr<Event> make_event() override;
  void copy(void* dst, const void* src, std::size_t bytes, Stream&) override;
  void zero(void* dst, std::size_t bytes, Stream&) override;
  Kernels& kernels() override { return kernels_; }
  int threads() const noexcept { return threads_; }

 private:
  int threads_;
  CpuKernels kernels_;
};

}  // namespace dtrain::cpu
