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
std::unique_ptr<Kernel> make_max_pool2d(const CudaContext&, const MaxPool2d&, std::span<const TensorDesc>) {
  missing("max_pool2d");
}
std::unique_ptr<Kernel> make_average_pool2d(const CudaContext&, const AveragePool2d&, std::span<const TensorDesc>) {
  missing("average_pool2d");
}
std::unique_ptr<Kernel> make_global_average_pool(const CudaContext&, std::span<const TensorDesc>) {
  missing("global_average_pool");
}
std::unique_ptr<Kernel> make_activation(const CudaContext&, const Activate&, std::span<const TensorDesc>) {
  missing("an activation");
}
std::unique_ptr<Kernel> make_add(const CudaContext&, const Add&, std::span<const TensorDesc>) {
  missing("add");
}
std::unique_ptr<Kernel> make_multiply(const CudaContext&, std::span<const TensorDesc>) {
  missing("multiply");
}
std::unique_ptr<Kernel> make_concat(const CudaContext&, std::span<const TensorDesc>) {
  missing("concat");
}
std::unique_ptr<Kernel> make_batch_norm(const CudaContext&, const BatchNorm&, std::span<const TensorDesc>) {
  missing("batch_norm");
}
std::unique_ptr<Kernel> make_batch_moments(const CudaContext&, std::span<const TensorDesc>) {
  missing("batch_moments");
}
std::unique_ptr<Kernel> make_batch_normalize(const CudaContext&, const BatchNormalize&, std::span<const TensorDesc>) {
  missing("batch_normalize");
}
std::unique_ptr<Kernel> make_layer_norm(const CudaContext&, const LayerNorm&, std::span<const TensorDesc>) {
  missing("layer_norm");
}
std::unique_ptr<Kernel> make_cast(const CudaContext&, const Cast&, std::span<const TensorDesc>) {
  missing("cast");
}
std::unique_ptr<Kernel> make_dropout(const CudaContext&, const Dropout&, std::span<const TensorDesc>) {
  missing("dropout");
}
std::unique_ptr<Kernel> make_softmax_cross_entropy(const CudaContext&, const SoftmaxCrossEntropy&,
                                                   std::span<const TensorDesc>) {
  missing("softmax_cross_entropy");
}
std::unique_ptr<Kernel> make_mean_squared_error(const CudaContext&, std::span<const TensorDesc>) {
  missing("mean_squared_error");
}

}  // namespace dtrain::cuda
