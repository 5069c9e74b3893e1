// One factory an op of the CUDA device; what each kernel does lies in the source beside it.
// A kernel is owned by its caller, and its passes are enqueued on the stream they are given; OpArgs::step is an address
// in device memory that the host never reads.
#pragma once

#include <memory>
#include <span>

#include "runtime/cuda/context.hpp"
#include "runtime/ops/op.hpp"

namespace dtrain::cuda {

// cuBLASLt and cuDNN.
std::unique_ptr<Kernel> make_linear(CudaContext&, const Linear&, std::span<const TensorDesc> in, const OpUse&);
std::unique_ptr<Kernel> make_conv2d(CudaContext&, const Conv2d&, std::span<const TensorDesc> in, const OpUse&);
// cuDNN or own kernels.
std::unique_ptr<Kernel> make_max_pool2d(CudaContext&, const MaxPool2d&, std::span<const TensorDesc> in, const OpUse&);
std::unique_ptr<Kernel> make_average_pool2d(CudaContext&, const AveragePool2d&, std::span<const TensorDesc> in);
std::unique_ptr<Kernel> make_global_average_pool(CudaContext&, const GlobalAveragePool&,
                                                 std::span<const TensorDesc> in);
std::unique_ptr<Kernel> make_batch_norm(CudaContext&, const BatchNorm&, std::span<const TensorDesc> in, const OpUse&);
std::unique_ptr<Kernel> make_layer_norm(CudaContext&, const LayerNorm&, std::span<const TensorDesc> in, const OpUse&);
// Own kernels.
std::unique_ptr<Kernel> make_activation(const CudaContext&, const Activate&, std::span<const TensorDesc> in);
std::unique_ptr<Kernel> make_add(const CudaContext&, const Add&, std::span<const TensorDesc> in);
std::unique_ptr<Kernel> make_multiply(const CudaContext&, std::span<const TensorDesc> in);
std::unique_ptr<Kernel> make_concat(const CudaContext&, std::span<const TensorDesc> in);
std::unique_ptr<Kernel> make_batch_moments(const CudaContext&, std::span<const TensorDesc> in);
std::unique_ptr<Kernel> make_batch_normalize(const CudaContext&, const BatchNormalize&, std::span<const TensorDesc> in);
std::unique_ptr<Kernel> make_cast(const CudaContext&, const Cast&, std::span<const TensorDesc> in);
std::unique_ptr<Kernel> make_dropout(const CudaContext&, const Dropout&, std::span<const TensorDesc> in);
/// Of a view: the plan gives output and input the same memory, and runs neither pass.
std::unique_ptr<Kernel> make_view();
std::unique_ptr<Kernel> make_softmax_cross_entropy(const CudaContext&, const SoftmaxCrossEntropy&,
                                                   std::span<const TensorDesc> in);
std::unique_ptr<Kernel> make_mean_squared_error(const CudaContext&, std::span<const TensorDesc> in);

}  // namespace dtrain::cuda
