// A device whose memory the host cannot touch, for tests of code that must not: like a GPU, without one.
// Wraps the CPU device, which it owns; addresses it hands out lie outside the address space, and only copy() and
// zero() know where they are.
#pragma once

#include <cstdint>
#include <memory>
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
  /// The CPU's, which must not be given this device's memory.
  Kernels& kernels() override { return near_->kernels(); }

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
