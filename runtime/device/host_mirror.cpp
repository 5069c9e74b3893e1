#include "runtime/device/host_mirror.hpp"

#include <utility>

namespace dtrain {

HostMirror::HostMirror(Device& device, void* range, std::size_t bytes)
    : device_(&device),
      range_(range),
      image_(device.asynchronous() ? device.allocate_host(bytes) : range),
      bytes_(bytes) {}

HostMirror::HostMirror(HostMirror&& o) noexcept
    : device_(std::exchange(o.device_, nullptr)),
      range_(std::exchange(o.range_, nullptr)),
      image_(std::exchange(o.image_, nullptr)),
      bytes_(std::exchange(o.bytes_, 0)) {}

HostMirror& HostMirror::operator=(HostMirror&& o) noexcept {
  std::swap(device_, o.device_);
  std::swap(range_, o.range_);
  std::swap(image_, o.image_);
  std::swap(bytes_, o.bytes_);
  return *this;
}

HostMirror::~HostMirror() {
  if (image_ != range_) device_->release_host(image_);
}

void HostMirror::pull(Stream& stream) const {
  if (image_ != range_) device_->copy(image_, range_, bytes_, stream);
}

void HostMirror::push(Stream& stream) const {
  if (image_ != range_) device_->copy(range_, image_, bytes_, stream);
}

}  // namespace dtrain
