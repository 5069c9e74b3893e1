// One factory an op of the CPU device; what each kernel does lies in the source beside it.
// A kernel is owned by its caller and runs on the calling thread with `threads` OpenMP threads.
#pragma once

#include <memory>
#include <span>

#include "runtime/ops/op.hpp"

namespace dtrain::cpu {

std::unique_ptr<Kernel> make_linear(const Linear&, std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_conv2d(const Conv2d&, std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_max_pool2d(const MaxPool2d&, std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_average_pool2d(const AveragePool2d&, std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_global_average_pool(std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_activation(const Activate&, std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_add(const Add&, std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_multiply(std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_concat(std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_batch_norm(const BatchNorm&, std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_batch_moments(std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_batch_normalize(const BatchNormalize&, std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_layer_norm(const LayerNorm&, std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_cast(const Cast&, std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_dropout(const Dropout&, std::span<const TensorDesc> in, int threads);
/// Of a view: the plan gives output and input the same memory, and runs neither pass.
std::unique_ptr<Kernel> make_view();
std::unique_ptr<Kernel> make_softmax_cross_entropy(const SoftmaxCrossEntropy&, std::span<const TensorDesc> in);
std::unique_ptr<Kernel> make_mean_squared_error(std::span<const TensorDesc> in);

/// In place: the gradient of the output y = act(x) becomes that of x, for an activation whose derivative_of_output
/// (none leaves it as it is). Both f32 or both bf16.
void epilogue_gradient(Activation, const Tensor& y, const Tensor& grad, int threads);
/// to[i] += from[i]; `dtype` is f32 or bf16 (added in float).
void add_into(DType dtype, void* to, const void* from, std::int64_t n, int threads);

}  // namespace dtrain::cpu
