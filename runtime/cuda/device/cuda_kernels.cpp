#include "runtime/cuda/device/cuda_kernels.hpp"

#include <utility>

#include "runtime/cuda/op_kernels.hpp"

namespace dtrain::cuda {

CudaKernels::CudaKernels(Device& device, CudaContext context) : FlatOps(device, std::move(context)) {}

std::unique_ptr<Kernel> CudaKernels::prepare(const OpSpec& op, std::span<const TensorDesc> in, const OpUse& use) {
  return std::visit([&](const auto& o) { return make(context_, o, in, use); }, op);
}

}  // namespace dtrain::cuda
