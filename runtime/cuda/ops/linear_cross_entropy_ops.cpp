// A dense layer and cross-entropy in chunks, of the kernels of both.
#include "runtime/cuda/op_kernels.hpp"
#include "runtime/ops/linear_cross_entropy_kernel.hpp"

namespace dtrain::cuda {

std::unique_ptr<Kernel> make(CudaContext& context, const LinearCrossEntropy& op, Inputs in, const OpUse& use) {
  const auto prepare = [&context](const OpSpec& part, Inputs of, const OpUse& used) {
    return std::visit([&](const auto& o) { return make(context, o, of, used); }, part);
  };
  return std::make_unique<LinearCrossEntropyKernel>(op, in, use, prepare);
}

}  // namespace dtrain::cuda
