// The kernels of one CUDA device: ops prepared for its GPU, and what runs on flat buffers.
// The context of FlatOps is what kernels are prepared with, and has the algorithms chosen so far; the device, which it
// takes memory from, owns it. One thread at a time.
#pragma once

#include <memory>
#include <span>

#include "runtime/cuda/context.hpp"
#include "runtime/cuda/update/update_ops.hpp"

namespace dtrain::cuda {

class CudaKernels final : public FlatOps {
 public:
  /// The device outlives it.
  CudaKernels(Device&, CudaContext);
  const CudaContext& context() const noexcept { return context_; }
  std::unique_ptr<Kernel> prepare(const OpSpec&, std::span<const TensorDesc> in, const OpUse&) override;
  AlgorithmChoices choices() const override { return context_.choices; }
  void use(const AlgorithmChoices& choices) override { context_.choices.merge(choices); }
};

}  // namespace dtrain::cuda
