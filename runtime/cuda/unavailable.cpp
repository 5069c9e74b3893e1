// What this version has no CUDA kernel for yet.
#include "runtime/cuda/op_kernels.hpp"
#include "runtime/error.hpp"

namespace dtrain::cuda {

namespace {
[[noreturn]] void missing(const char* op) {
  throw DeviceError(std::string("this version has no CUDA kernel for ") + op + " yet; use device: cpu");
}
}  // namespace

std::unique_ptr<Kernel> make_linear(CudaContext&, const Linear&, std::span<const TensorDesc>) {
  missing("linear");
}
std::unique_ptr<Kernel> make_conv2d(CudaContext&, const Conv2d&, std::span<const TensorDesc>) {
  missing("conv2d");
}

}  // namespace dtrain::cuda
