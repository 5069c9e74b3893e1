// A CUDA device without a GPU: see simulated_device.cpp.
// Owns the CPU device whose memory and streams it uses; everything runs inline on the caller's thread.
#pragma once

#include <memory>

#include "runtime/cuda/device/cuda_kernels.hpp"
#include "runtime/device/device.hpp"
#include "tests/support/devices.hpp"

namespace dtrain::test {

class SimulatedDevice final : public Device {
 public:
  explicit SimulatedDevice(const CudaOptions& options = {})
      : kernels_(*this, {0, "simulated", 90, 132, 232448, options}) {}
  DeviceKind kind() const noexcept override { return DeviceKind::cuda; }
  std::string name() const override { return "simulated"; }
  void* allocate(std::size_t bytes) override { return cpu_->allocate(bytes); }
  void release(void* memory) noexcept override { cpu_->release(memory); }
  std::unique_ptr<Stream> make_stream(StreamUse use) override { return cpu_->make_stream(use); }
  std::unique_ptr<Event> make_event() override { return cpu_->make_event(); }
  void copy(void* to, const void* from, std::size_t bytes, Stream& s) override { cpu_->copy(to, from, bytes, s); }
  void zero(void* to, std::size_t bytes, Stream& stream) override { cpu_->zero(to, bytes, stream); }
  Kernels& kernels() override { return kernels_; }

 private:
  std::unique_ptr<Device> cpu_ = make_cpu_device(1);
  cuda::CudaKernels kernels_;
};

}  // namespace dtrain::test
