// A CUDA device without a GPU: see simulated_device.cpp.
// Owns the CPU device whose memory and streams it uses; everything runs inline on the caller's thread.
#pragma once

#include <memory>

#include "runtime/cuda/context.hpp"
#include "runtime/cuda/update/update_ops.hpp"
#include "runtime/device/device.hpp"
#include "tests/support/devices.hpp"

namespace dtrain::test {

class SimulatedDevice final : public Device {
 public:
  explicit SimulatedDevice(const CudaOptions& options = {}) { context_.options = options; }
  DeviceKind kind() const noexcept override { return DeviceKind::cuda; }
  std::string name() const override { return "simulated"; }
  void* allocate(std::size_t bytes) override { return cpu_->allocate(bytes); }
  void release(void* memory) noexcept override { cpu_->release(memory); }
  std::unique_ptr<Stream> make_stream(StreamUse use) override { return cpu_->make_stream(use); }
  std::unique_ptr<Event> make_event() override { return cpu_->make_event(); }
  void copy(void* to, const void* from, std::size_t bytes, Stream& s) override { cpu_->copy(to, from, bytes, s); }
  void zero(void* to, std::size_t bytes, Stream& stream) override { cpu_->zero(to, bytes, stream); }
  std::unique_ptr<Kernel> prepare(const OpSpec&, std::span<const TensorDesc>, const OpUse&) override;
  AlgorithmChoices choices() const override { return context_.choices; }
  void use(const AlgorithmChoices& choices) override { context_.choices.merge(choices); }
  void update_states(const StateUpdateArgs& args, Stream& stream) override { flat_.update_states(args, stream); }
  void update(const UpdateRule& rule, const UpdateArgs& args, Stream& stream) override {
    flat_.update(rule, args, stream);
  }
  void average(float* average, const float* params, std::size_t n, double decay, const StepState& step,
               Stream& stream) override {
    cuda::FlatOps::average(average, params, n, decay, step, stream);
  }
  void sum_squares(const float* x, std::size_t n, double* partial, Stream& stream) override {
    cuda::FlatOps::sum_squares(x, n, partial, stream);
  }
  void finish_gradients(const GradientArgs& args, Stream& stream) override {
    cuda::FlatOps::finish_gradients(args, stream);
  }
  void finish_step(const FinishArgs& args, Stream& stream) override { cuda::FlatOps::finish_step(args, stream); }
  void load_images(const ImageFormat& format, const ImageBatch& batch, Stream& stream) override {
    cuda::FlatOps::load_images(format, batch, stream);
  }
  void add(std::span<const float* const> parts, float* out, std::size_t begin, std::size_t end,
           Stream& stream) override {
    cuda::FlatOps::add(parts, out, begin, end, stream);
  }
  void cast(Tensor from, Tensor to, Stream& stream) override { cuda::FlatOps::cast(from, to, stream); }

 private:
  std::unique_ptr<Device> cpu_ = make_cpu_device(1);
  cuda::FlatOps flat_{*this};
  cuda::CudaContext context_{0, "simulated", 90, 132, 232448};
};

}  // namespace dtrain::test
