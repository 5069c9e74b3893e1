// HostBuffer: host memory that copies to and from a device reach without a detour.
// Owns it; the Device outlives it.
#pragma once

#include <cstddef>
#include <utility>

#include "runtime/device/device.hpp"

namespace dtrain {

class HostBuffer {
 public:
  HostBuffer() = default;
  /// Throws OutOfMemory.
  HostBuffer(Device& device, std::size_t bytes) : device_(&device), data_(device.allocate_host(bytes)) {}
  HostBuffer(HostBuffer&& o) noexcept : device_(o.device_), data_(std::exchange(o.data_, nullptr)) {}
  HostBuffer& operator=(HostBuffer&& o) noexcept {
    std::swap(device_, o.device_);
    std::swap(data_, o.data_);
    return *this;
  }
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;
  ~HostBuffer() {
    if (data_ != nullptr) device_->release_host(data_);
  }
  void* data() const noexcept { return data_; }

 private:
  Device* device_ = nullptr;
  void* data_ = nullptr;
};

}  // namespace dtrain
