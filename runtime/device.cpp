#include "runtime/device.hpp"

#include "runtime/error.hpp"

namespace dtrain {

std::unique_ptr<Device> make_device(DeviceKind kind, int ordinal, int threads, const CudaOptions& cuda) {
  switch (kind) {
    case DeviceKind::cpu:
      return make_cpu_device(threads);
    case DeviceKind::cuda:
      return make_cuda_device(ordinal, cuda);
  }
  throw BugError("unknown kind of device");
}

}  // namespace dtrain
