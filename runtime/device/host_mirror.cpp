#include "runtime/device/host_mirror.hpp"

namespace dtrain {

HostMirror::HostMirror(Device& device, void* range, std::size_t bytes)
    : device_(&device), range_(range), bytes_(bytes) {
  if (device.asynchronous()) copy_ = HostBuffer(device, bytes);
}

void HostMirror::pull(Stream& stream) const {
  if (copy_.data() != nullptr) device_->copy(copy_.data(), range_, bytes_, stream);
}

void HostMirror::push(Stream& stream) const {
  if (copy_.data() != nullptr) device_->copy(range_, copy_.data(), bytes_, stream);
}

}  // namespace dtrain
