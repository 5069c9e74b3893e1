// A device whose memory the host cannot touch, for tests of code that must not: like a GPU, without one.
// Wraps the CPU device, which it owns; addresses it hands out lie outside the address space, and only copy() and
// zero() know where they are.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "runtime/device/device.hpp"

namespace dtrain::test {

class FarDevice final : public Device {
 public:
  DeviceKind kind() const noexcept override { return DeviceKind::cuda; }
  bool asynchronous() const noexcept override { return true; }
  std::string name() const override { return "far"; }
  void* allocate(std::size_t bytes) override { return moved(near_->allocate(bytes)); }
  void release(void* memory) noexcept override { near_->release(real(memory)); }
  void* allocate_host(std::size_t bytes) override { return near_->allocate(bytes); }
  void release_host(void* memory) noexcept override { near_->release(memory); }
  std::unique_ptr<Stream> make_stream(StreamUse) override { return near_->make_stream(StreamUse::copy); }
  std::unique_ptr<Event> make_event() override { return near_->make_event(); }
  void copy(void* to, const void* from, std::size_t bytes, Stream& stream) override {
    ++copies;
    near_->copy(real(to), real(const_cast<void*>(from)), bytes, stream);
  }
  void zero(void* to, std::size_t bytes, Stream& stream) override { near_->zero(real(to), bytes, stream); }
  std::unique_ptr<Kernel> prepare(const OpSpec& op, std::span<const TensorDesc> in, const OpUse& use) override {
    return near_->prepare(op, in, use);
  }
  void update(const UpdateRule&, const UpdateArgs&, Stream&) override {}
  void update_states(const StateUpdateArgs&, Stream&) override {}
  void average(float*, const float*, std::size_t, double, const StepState&, Stream&) override {}
  void sum_squares(const float*, std::size_t, double*, Stream&) override {}
  void finish_gradients(const GradientArgs&, Stream&) override {}
  void finish_step(const FinishArgs&, Stream&) override {}
  void load_images(const ImageFormat&, const ImageBatch&, Stream&) override {}
  void add(std::span<const float* const>, float*, std::size_t, std::size_t, Stream&) override {}
  void cast(Tensor, Tensor, Stream&) override {}

  /// What the device itself would see; after its stream was synchronized.
  template <class T>
  static const T& at(const void* memory) {
    return *static_cast<const T*>(real(const_cast<void*>(memory)));
  }
  int copies = 0;

 private:
  static constexpr std::uintptr_t far = std::uintptr_t{1} << 62;  // not canonical: a touch ends the process
  static void* moved(void* memory) { return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(memory) | far); }
  static void* real(void* memory) { return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(memory) & ~far); }

  std::unique_ptr<Device> near_ = make_cpu_device(1);
};

}  // namespace dtrain::test
