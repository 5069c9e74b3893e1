#include "runtime/cpu/missing.hpp"

#include "runtime/cpu/op_kernels.hpp"
namespace dtrain::cpu {
std::unique_ptr<Kernel> make_average_pool2d(const AveragePool2d&, std::span<const TensorDesc>, int) {
  throw_missing("make_average_pool2d");
}
std::unique_ptr<Kernel> make_global_average_pool(std::span<const TensorDesc>, int) {
  throw_missing("make_global_average_pool");
}
std::unique_ptr<Kernel> make_add(const Add&, std::span<const TensorDesc>, int) {
  throw_missing("make_add");
}
std::unique_ptr<Kernel> make_multiply(std::span<const TensorDesc>, int) {
  throw_missing("make_multiply");
}
std::unique_ptr<Kernel> make_concat(std::span<const TensorDesc>, int) {
  throw_missing("make_concat");
}
std::unique_ptr<Kernel> make_batch_norm(const BatchNorm&, std::span<const TensorDesc>, int) {
  throw_missing("make_batch_norm");
}
std::unique_ptr<Kernel> make_batch_moments(std::span<const TensorDesc>, int) {
  throw_missing("make_batch_moments");
}
std::unique_ptr<Kernel> make_batch_normalize(const BatchNormalize&, std::span<const TensorDesc>, int) {
  throw_missing("make_batch_normalize");
}
std::unique_ptr<Kernel> make_layer_norm(const LayerNorm&, std::span<const TensorDesc>, int) {
  throw_missing("make_layer_norm");
}
std::unique_ptr<Kernel> make_cast(const Cast&, std::span<const TensorDesc>, int) {
  throw_missing("make_cast");
}
}  // namespace dtrain::cpu
