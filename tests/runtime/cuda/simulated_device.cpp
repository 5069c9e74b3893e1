// A CUDA device without a GPU: the memory and streams of the CPU, and the CUDA device's own kernels, run on the host.
// Dense and convolution find simulated libraries: see simulated_libraries.cpp.
#include "tests/runtime/cuda/simulated_device.hpp"

namespace dtrain::test {

const std::vector<AvailableDevice>& available_devices() {
  static const std::vector<AvailableDevice> devices{
      {"simulated", []() -> std::unique_ptr<Device> { return std::make_unique<SimulatedDevice>(); },
       []() -> std::unique_ptr<Device> { return std::make_unique<SimulatedDevice>(CudaOptions{.tf32 = true}); }}};
  return devices;
}

}  // namespace dtrain::test
