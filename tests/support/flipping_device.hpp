// The CPU with memory that a test may change behind the trainer's back: after updates of parameters and of their
// average it calls the test with what these were given.
// Wraps the CPU device, which it owns; the calls come on the training thread.
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "runtime/device/device.hpp"
#include "runtime/ops/kernels.hpp"
#include "runtime/optim/optimizer.hpp"

namespace dtrain::test {

/// Flips one bit of a number's middle digits.
inline void flip_bit(float& value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits ^= 1u << 19;
  std::memcpy(&value, &bits, sizeof bits);
}

class FlippingDevice final : public Device {
 public:
  struct Hooks {
    std::function<void(const UpdateArgs&)> updated = [](const UpdateArgs&) {};
    std::function<void(float* average, const StepState&)> averaged = [](float*, const StepState&) {};
  };
  explicit FlippingDevice(Hooks hooks) : kernels_(cpu_->kernels(), std::move(hooks)) {}

  DeviceKind kind() const noexcept override { return cpu_->kind(); }
  std::string name() const override { return cpu_->name(); }
  void* allocate(std::size_t bytes) override { return cpu_->allocate(bytes); }
  void release(void* memory) noexcept override { cpu_->release(memory); }
  std::unique_ptr<Stream> make_stream(StreamUse use) override { return cpu_->make_stream(use); }
  std::unique_ptr<Event> make_event() override { return cpu_->make_event(); }
  void copy(void* to, const void* from, std::size_t bytes, Stream& s) override { cpu_->copy(to, from, bytes, s); }
  void zero(void* to, std::size_t bytes, Stream& stream) override { cpu_->zero(to, bytes, stream); }
  Kernels& kernels() override { return kernels_; }

 private:
  class Hooked final : public Kernels {
   public:
    Hooked(Kernels& base, Hooks hooks) : base_(base), hooks_(std::move(hooks)) {}
    std::unique_ptr<Kernel> prepare(const OpSpec& op, std::span<const TensorDesc> in, const OpUse& use) override {
      return base_.prepare(op, in, use);
    }
    void update(const UpdateRule& rule, const UpdateArgs& args, Stream& stream) override {
      base_.update(rule, args, stream);
      hooks_.updated(args);
    }
    void update_states(const StateUpdateArgs& args, Stream& stream) override { base_.update_states(args, stream); }
    void average(float* average, const float* params, std::size_t n, double decay, const StepState& step,
                 Stream& stream) override {
      base_.average(average, params, n, decay, step, stream);
      hooks_.averaged(average, step);
    }
    void sum_squares(const float* x, std::size_t n, double* partial, Stream& stream) override {
      base_.sum_squares(x, n, partial, stream);
    }
    void finish_gradients(const GradientArgs& args, Stream& stream) override { base_.finish_gradients(args, stream); }
    void finish_step(const FinishArgs& args, Stream& stream) override { base_.finish_step(args, stream); }
    void load_images(const ImageFormat& format, const ImageBatch& batch, Stream& stream) override {
      base_.load_images(format, batch, stream);
    }
    void add(std::span<const float* const> parts, float* out, std::size_t begin, std::size_t end,
             Stream& stream) override {
      base_.add(parts, out, begin, end, stream);
    }
    void cast(Tensor from, Tensor to, Stream& stream) override { base_.cast(from, to, stream); }

   private:
    Kernels& base_;
    const Hooks hooks_;
  };

  std::unique_ptr<Device> cpu_ = make_cpu_device(1);
  Hooked kernels_;
};

}  // namespace dtrain::test
