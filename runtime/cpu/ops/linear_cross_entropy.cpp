// A dense layer and cross-entropy in chunks, of the kernels of both.
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/ops/linear_cross_entropy_kernel.hpp"

namespace dtrain::cpu {

std::unique_ptr<Kernel> make(const LinearCrossEntropy& op, Inputs in, int threads) {
  const auto prepare = [threads](const OpSpec& part, Inputs of, const OpUse&) {
    return std::visit([&](const auto& o) { return make(o, of, threads); }, part);
  };
  return std::make_unique<LinearCrossEntropyKernel>(op, in, OpUse{}, prepare);
}

}  // namespace dtrain::cpu
