// The registry of the CUDA device: a line an op; what each kernel does lies in cuda/ops.
// A kernel is owned by its caller, and its passes are enqueued on the stream they are given; OpArgs::step is an address
// in device memory that the host never reads.
#pragma once

#include <memory>
#include <span>

#include "runtime/cuda/context.hpp"
#include "runtime/ops/op.hpp"

namespace dtrain::cuda {

using Inputs = std::span<const TensorDesc>;

std::unique_ptr<Kernel> make(CudaContext&, const Conv&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const ConvTranspose&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const Upsample&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const MaxPool&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const AveragePool&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const GlobalAveragePool&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const Dense&, Inputs, const OpUse&);
inline std::unique_ptr<Kernel> make(CudaContext&, const Flatten&, Inputs, const OpUse&) {
  return std::make_unique<ViewKernel>();
}
std::unique_ptr<Kernel> make(CudaContext&, const BatchNorm&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const BatchMoments&, Inputs, const OpUse&);
inline std::unique_ptr<Kernel> make(CudaContext&, const SumOverRanks&, Inputs, const OpUse&) {
  return std::make_unique<ViewKernel>();
}
std::unique_ptr<Kernel> make(CudaContext&, const BatchNormalize&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const LayerNorm&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const RmsNorm&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const Embedding&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const Positions&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const ClassToken&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const SequencePool&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const Attention&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const CachedAttention&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const Gated&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const Activate&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const SoftCap&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const Add&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const Multiply&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const Concat&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const Dropout&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const Cast&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const SoftmaxCrossEntropy&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const LinearCrossEntropy&, Inputs, const OpUse&);
std::unique_ptr<Kernel> make(CudaContext&, const MeanSquaredError&, Inputs, const OpUse&);

}  // namespace dtrain::cuda
