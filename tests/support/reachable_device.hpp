// Memory that the host and a device both reach, for suites that touch what they give to a device: a GPU's is pinned.
// ReachableDevice owns the device that it wraps; Reachable arrays belong to whoever made them, and end before the
// device.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/device/device.hpp"
#include "tests/support/devices.hpp"

namespace dtrain::test {

/// A device whose allocate() is allocate_host(); all else is that of the device it wraps.
class ReachableDevice final : public Device {
 public:
  explicit ReachableDevice(std::unique_ptr<Device> device) : device_(std::move(device)) {}
  DeviceKind kind() const noexcept override { return device_->kind(); }
  std::string name() const override { return device_->name(); }
  bool asynchronous() const noexcept override { return device_->asynchronous(); }
  void* allocate(std::size_t bytes) override { return device_->allocate_host(bytes); }
  void release(void* memory) noexcept override { device_->release_host(memory); }
  void* allocate_host(std::size_t bytes) override { return device_->allocate_host(bytes); }
  void release_host(void* memory) noexcept override { device_->release_host(memory); }
  std::unique_ptr<Stream> make_stream(StreamUse use) override { return device_->make_stream(use); }
  std::unique_ptr<Event> make_event() override { return device_->make_event(); }
  std::unique_ptr<Event> make_timer() override { return device_->make_timer(); }
  std::unique_ptr<Replay> record(Stream& s, const std::function<void()>& work, std::string& why_not) override {
    return device_->record(s, work, why_not);
  }
  void copy(void* to, const void* from, std::size_t bytes, Stream& s) override { device_->copy(to, from, bytes, s); }
  void zero(void* to, std::size_t bytes, Stream& s) override { device_->zero(to, bytes, s); }
  Kernels& kernels() override { return device_->kernels(); }
  std::size_t free_memory() const override { return device_->free_memory(); }
  std::string bus_id() const override { return device_->bus_id(); }

 private:
  std::unique_ptr<Device> device_;
};

/// An allocator of a device's host memory.
template <class T>
struct FromDevice {
  using value_type = T;
  explicit FromDevice(Device& d) : device(&d) {}
  template <class U>
  FromDevice(const FromDevice<U>& o) : device(o.device) {}  // NOLINT(google-explicit-constructor): allocators convert
  T* allocate(std::size_t n) { return static_cast<T*>(device->allocate_host(n * sizeof(T))); }
  void deallocate(T* memory, std::size_t) noexcept { device->release_host(memory); }
  friend bool operator==(const FromDevice& a, const FromDevice& b) { return a.device == b.device; }
  Device* device;
};
template <class T>
using Reachable = std::vector<T, FromDevice<T>>;

/// Suites that run once on each device of available_devices(): see DTRAIN_ON_EACH_DEVICE.
class OnEachDevice : public testing::TestWithParam<AvailableDevice> {
 protected:
  static std::unique_ptr<Device> make_device() { return std::make_unique<ReachableDevice>(GetParam().make()); }
};

}  // namespace dtrain::test

/// Names tests Devices/SUITE.TEST/cpu.
#define DTRAIN_ON_EACH_DEVICE(Suite)                                                             \
  INSTANTIATE_TEST_SUITE_P(Devices, Suite, testing::ValuesIn(dtrain::test::available_devices()), \
                           [](const auto& instance) { return instance.param.name; })
