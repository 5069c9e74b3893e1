// The registry of the CPU device: a line an op; what each kernel does lies in cpu/ops.
// A kernel is owned by its caller and runs on the calling thread with `threads` OpenMP threads.
#pragma once

#include <memory>
#include <span>

#include "runtime/ops/op.hpp"

namespace dtrain::cpu {

using Inputs = std::span<const TensorDesc>;

std::unique_ptr<Kernel> make(const Conv&, Inputs, int threads);
std::unique_ptr<Kernel> make(const ConvTranspose&, Inputs, int threads);
std::unique_ptr<Kernel> make(const Upsample&, Inputs, int threads);
std::unique_ptr<Kernel> make(const MaxPool&, Inputs, int threads);
std::unique_ptr<Kernel> make(const AveragePool&, Inputs, int threads);
std::unique_ptr<Kernel> make(const GlobalAveragePool&, Inputs, int threads);
std::unique_ptr<Kernel> make(const Dense&, Inputs, int threads);
inline std::unique_ptr<Kernel> make(const Flatten&, Inputs, int /*threads*/) {
  return std::make_unique<ViewKernel>();
}
std::unique_ptr<Kernel> make(const BatchNorm&, Inputs, int threads);
std::unique_ptr<Kernel> make(const BatchMoments&, Inputs, int threads);
inline std::unique_ptr<Kernel> make(const SumOverRanks&, Inputs, int /*threads*/) {
  return std::make_unique<ViewKernel>();
}
std::unique_ptr<Kernel> make(const BatchNormalize&, Inputs, int threads);
std::unique_ptr<Kernel> make(const LayerNorm&, Inputs, int threads);
std::unique_ptr<Kernel> make(const RmsNorm&, Inputs, int threads);
std::unique_ptr<Kernel> make(const Embedding&, Inputs, int threads);
std::unique_ptr<Kernel> make(const Positions&, Inputs, int threads);
std::unique_ptr<Kernel> make(const ClassToken&, Inputs, int threads);
std::unique_ptr<Kernel> make(const SequencePool&, Inputs, int threads);
std::unique_ptr<Kernel> make(const Attention&, Inputs, int threads);
std::unique_ptr<Kernel> make(const CachedAttention&, Inputs, int threads);
std::unique_ptr<Kernel> make(const Gated&, Inputs, int threads);
std::unique_ptr<Kernel> make(const Activate&, Inputs, int threads);
std::unique_ptr<Kernel> make(const SoftCap&, Inputs, int threads);
std::unique_ptr<Kernel> make(const Add&, Inputs, int threads);
std::unique_ptr<Kernel> make(const Multiply&, Inputs, int threads);
std::unique_ptr<Kernel> make(const Concat&, Inputs, int threads);
std::unique_ptr<Kernel> make(const Dropout&, Inputs, int threads);
std::unique_ptr<Kernel> make(const Cast&, Inputs, int threads);
std::unique_ptr<Kernel> make(const SoftmaxCrossEntropy&, Inputs, int threads);
std::unique_ptr<Kernel> make(const LinearCrossEntropy&, Inputs, int threads);
std::unique_ptr<Kernel> make(const MeanSquaredError&, Inputs, int threads);

/// In place: the gradient of the output y = act(x) becomes that of x, for an activation whose derivative_of_output
/// (none leaves it as it is). Both f32 or both bf16.
void epilogue_gradient(Activation, const Tensor& y, const Tensor& grad, int threads);
/// In place: y = act(y + bias) of each row; `bias` [channels] may be null.
void bias_activate(Activation, const Tensor& y, const float* bias, int threads);
/// to[i] += from[i]; `dtype` is f32 or bf16 (added in float).
void add_into(DType dtype, void* to, const void* from, std::int64_t n, int threads);

}  // namespace dtrain::cpu
