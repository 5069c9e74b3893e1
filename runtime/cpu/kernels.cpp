#include "runtime/cpu/kernels.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "runtime/cpu/op_kernels.hpp"

namespace dtrain::cpu {

namespace {

struct Make {
  std::span<const TensorDesc> in;
  int threads;
  using Made = std::unique_ptr<Kernel>;
  Made operator()(const Linear& op) const { return make_linear(op, in, threads); }
  Made operator()(const Conv2d& op) const { return make_conv2d(op, in, threads); }
  Made operator()(const MaxPool2d& op) const { return make_max_pool2d(op, in, threads); }
  Made operator()(const Activate& op) const { return make_activation(op, in, threads); }
  Made operator()(const AveragePool2d& op) const { return make_average_pool2d(op, in, threads); }
  Made operator()(const GlobalAveragePool&) const { return make_global_average_pool(in, threads); }
  Made operator()(const Add& op) const { return make_add(op, in, threads); }
  Made operator()(const Multiply&) const { return make_multiply(in, threads); }
  Made operator()(const Concat&) const { return make_concat(in, threads); }
  Made operator()(const BatchNorm& op) const { return make_batch_norm(op, in, threads); }
  Made operator()(const BatchMoments&) const { return make_batch_moments(in, threads); }
  Made operator()(const SumOverRanks&) const { return make_view(); }
  Made operator()(const BatchNormalize& op) const { return make_batch_normalize(op, in, threads); }
  Made operator()(const LayerNorm& op) const { return make_layer_norm(op, in, threads); }
  Made operator()(const Cast& op) const { return make_cast(op, in, threads); }
  Made operator()(const Dropout& op) const { return make_dropout(op, in, threads); }
  Made operator()(const Flatten&) const { return make_view(); }
  Made operator()(const SoftmaxCrossEntropy& op) const { return make_softmax_cross_entropy(op, in); }
  Made operator()(const MeanSquaredError&) const { return make_mean_squared_error(in); }
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const OpSpec& op, std::span<const TensorDesc> in, int threads) {
  const auto* cast = std::get_if<Cast>(&op);
  const auto half = [](const TensorDesc& desc) { return desc.dtype == DType::f16; };
  if (std::any_of(in.begin(), in.end(), half) || (cast != nullptr && cast->to == DType::f16))
    throw DeviceError(fmt::format("{}: the cpu has no kernels in float16; use bfloat16 or float32", name_of(op)));
  return std::visit(Make{in, threads}, op);
}

}  // namespace dtrain::cpu
