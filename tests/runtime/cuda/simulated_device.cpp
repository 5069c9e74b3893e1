// A CUDA device without a GPU: the memory and streams of the CPU, and the CUDA device's own kernels, run on the host.
// Linear and convolution, which are a vendor's on a GPU, are the CPU's here.
#include "tests/runtime/cuda/simulated_device.hpp"

#include "runtime/cuda/op_kernels.hpp"

namespace dtrain::cuda {

namespace {
std::unique_ptr<Kernel> on_cpu(const OpSpec& op, std::span<const TensorDesc> in) {
  return make_cpu_device(1)->prepare(op, in);
}
}  // namespace

std::unique_ptr<Kernel> make_linear(CudaContext&, const Linear& op, std::span<const TensorDesc> in) {
  return on_cpu(op, in);
}
std::unique_ptr<Kernel> make_conv2d(CudaContext&, const Conv2d& op, std::span<const TensorDesc> in) {
  return on_cpu(op, in);
}

}  // namespace dtrain::cuda

namespace dtrain::test {

std::unique_ptr<Kernel> SimulatedDevice::prepare(const OpSpec& op, std::span<const TensorDesc> in) {
  return cuda::make_kernel(context_, op, in);
}

const std::vector<AvailableDevice>& available_devices() {
  static const std::vector<AvailableDevice> devices{
      {"simulated", []() -> std::unique_ptr<Device> { return std::make_unique<SimulatedDevice>(); }}};
  return devices;
}

}  // namespace dtrain::test
