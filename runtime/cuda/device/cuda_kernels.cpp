#include "runtime/cuda/device/cuda_kernels.hpp"

#include <utility>

#include "runtime/cuda/op_kernels.hpp"

namespace dtrain::cuda {

namespace {

struct Make {
  CudaContext& context;
  std::span<const TensorDesc> in;
  const OpUse& use;
  using Made = std::unique_ptr<Kernel>;
  Made operator()(const Linear& op) const { return make_linear(context, op, in, use); }
  Made operator()(const Conv2d& op) const { return make_conv2d(context, op, in, use); }
  Made operator()(const MaxPool2d& op) const { return make_max_pool2d(context, op, in, use); }
  Made operator()(const AveragePool2d& op) const { return make_average_pool2d(context, op, in); }
  Made operator()(const GlobalAveragePool& op) const { return make_global_average_pool(context, op, in); }
  Made operator()(const Activate& op) const { return make_activation(context, op, in); }
  Made operator()(const Add& op) const { return make_add(context, op, in); }
  Made operator()(const Multiply&) const { return make_multiply(context, in); }
  Made operator()(const Concat&) const { return make_concat(context, in); }
  Made operator()(const BatchNorm& op) const { return make_batch_norm(context, op, in, use); }
  Made operator()(const BatchMoments&) const { return make_batch_moments(context, in); }
  Made operator()(const SumOverRanks&) const { return make_view(); }
  Made operator()(const BatchNormalize& op) const { return make_batch_normalize(context, op, in); }
  Made operator()(const LayerNorm& op) const { return make_layer_norm(context, op, in, use); }
  Made operator()(const Cast& op) const { return make_cast(context, op, in); }
  Made operator()(const Dropout& op) const { return make_dropout(context, op, in); }
  Made operator()(const Flatten&) const { return make_view(); }
  Made operator()(const SoftmaxCrossEntropy& op) const { return make_softmax_cross_entropy(context, op, in); }
  Made operator()(const MeanSquaredError&) const { return make_mean_squared_error(context, in); }
};

class ViewKernel final : public Kernel {
 public:
  void forward(const OpArgs&, Stream&) override {}
  void backward(const OpArgs&, const OpGrads&, Stream&) override {}
};

}  // namespace

CudaKernels::CudaKernels(Device& device, CudaContext context) : FlatOps(device), context_(std::move(context)) {}

std::unique_ptr<Kernel> CudaKernels::prepare(const OpSpec& op, std::span<const TensorDesc> in, const OpUse& use) {
  return std::visit(Make{context_, in, use}, op);
}
std::unique_ptr<Kernel> make_view() {
  return std::make_unique<ViewKernel>();
}

}  // namespace dtrain::cuda
