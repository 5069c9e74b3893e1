// A CUDA device without a GPU: see simulated_device.cpp.
// Owns the CPU device whose memory and streams it uses; everything runs inline on the caller's thread.
#pragma once

#include <memory>

#include "runtime/cuda/context.hpp"
#include "runtime/device.hpp"
#include "tests/support/devices.hpp"

namespace dtrain::test {

class SimulatedDevice final : public Device {
 public:
  DeviceKind kind() const noexcept override { return DeviceKind::cuda; }
  std::string name() const override { return "simulated"; }
  void* allocate(std::size_t bytes) override { return cpu_->allocate(bytes); }
  void release(void* memory) noexcept override { cpu_->release(memory); }
  std::unique_ptr<Stream> make_stream(StreamUse use) override { return cpu_->make_stream(use); }
  std::unique_ptr<Event> make_event() override { return cpu_->make_event(); }
  void copy(void* to, const void* from, std::size_t bytes, Stream& s) override { cpu_->copy(to, from, bytes, s); }
  void zero(void* to, std::size_t bytes, Stream& stream) override { cpu_->zero(to, bytes, stream); }
  std::unique_ptr<Kernel> prepare(const OpSpec&, std::span<const TensorDesc>) override;
  void update(const UpdateRule&, const UpdateArgs&, Stream&) override {}
  void update_states(const StateUpdateArgs&, Stream&) override {}
  void average(float*, const float*, std::size_t, double, const StepState&, Stream&) override {}
  void sum_squares(const float*, std::size_t, double*, Stream&) override {}
  void finish_gradients(const GradientArgs&, Stream&) override {}
  void finish_step(const FinishArgs&, Stream&) override {}
  void load_images(const ImageFormat&, const ImageBatch&, Stream&) override {}
  void add(std::span<const float* const>, float*, std::size_t, std::size_t, Stream&) override {}
  void cast(Tensor, Tensor, Stream&) override {}

 private:
  std::unique_ptr<Device> cpu_ = make_cpu_device(1);
  cuda::CudaContext context_{0, "simulated", 90, 132, 232448};
};

}  // namespace dtrain::test
