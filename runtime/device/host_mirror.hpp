// The host's image of a range of device memory: the memory itself on a cpu, a copy in pinned memory elsewhere, so that
// nobody above runtime/ touches device memory directly.
// Owns the copy where there is one and views the range; used by one thread, and valid while the Device and the range
// are.
#pragma once

#include <cstddef>

#include "runtime/device/host_buffer.hpp"

namespace dtrain {

class HostMirror {
 public:
  HostMirror() = default;
  /// Throws OutOfMemory.
  HostMirror(Device&, void* range, std::size_t bytes);

  /// The image: what the range held at the latest pull(), once its stream was synchronized.
  template <class T>
  T* as() const noexcept {
    return static_cast<T*>(copy_.data() != nullptr ? copy_.data() : range_);
  }
  /// Device memory.
  void* range() const noexcept { return range_; }
  std::size_t bytes() const noexcept { return bytes_; }
  /// Device to host, in stream order. Nothing to do on a cpu.
  void pull(Stream&) const;
  /// Host to device, in stream order; the image must stay as it is until the stream was there.
  void push(Stream&) const;

 private:
  Device* device_ = nullptr;
  void* range_ = nullptr;
  std::size_t bytes_ = 0;
  HostBuffer copy_;  // none where the host sees the range
};

}  // namespace dtrain
