// The CPU as a Device: oneDNN and vectorised kernels with a fixed number of threads.
// Owns no memory but what it hands out; a compute stream runs inline on whichever thread calls it.
#pragma once

#include <string>

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
  std::unique_ptr<Kernel> prepare(const OpSpec&, std::span<const TensorDesc> in, const OpUse&) override;
  void update(const UpdateRule&, const UpdateArgs&, Stream&) override;
  void update_states(const StateUpdateArgs&, Stream&) override;
  void average(float* average, const float* params, std::size_t n, double decay, const StepState&, Stream&) override;
  void sum_squares(const float* x, std::size_t n, double* partial, Stream&) override;
  void finish_gradients(const GradientArgs&, Stream&) override;
  void finish_step(const FinishArgs&, Stream&) override;
  void load_images(const ImageFormat&, const ImageBatch&, Stream&) override;
  void add(std::span<const float* const> parts, float* out, std::size_t begin, std::size_t end, Stream&) override;
  void cast(Tensor from, Tensor to, Stream&) override;
  int threads() const noexcept { return threads_; }

 private:
  int threads_;
};

}  // namespace dtrain::cpu
