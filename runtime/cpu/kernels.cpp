#include "runtime/cpu/kernels.hpp"

#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

namespace {

struct Make {
  std::span<const TensorDesc> in;
  int threads;
  using Made = std::unique_ptr<Kernel>;
  Made operator()(const Linear& op) const { return make_linear(op, in, threads); }
  Made operator()(const Conv2d& op) const { return make_conv2d(op, in, threads); }
  Made operator()(const MaxPool2d& op) const { return make_max_pool2d(op, in, threads); }
  Made operator()(const Relu&) const { return make_relu(in, threads); }
  Made operator()(const Dropout& op) const { return make_dropout(op, in, threads); }
  Made operator()(const Flatten&) const { return make_flatten(); }
  Made operator()(const SoftmaxCrossEntropy&) const { return make_softmax_cross_entropy(in); }
  Made operator()(const MeanSquaredError&) const { return make_mean_squared_error(in); }
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const OpSpec& op, std::span<const TensorDesc> in, int threads) {
  return std::visit(Make{in, threads}, op);
}

void mask_relu_gradient(const float* y, float* grad, std::int64_t n, int threads) {
  parallel_chunks(n, 32 * 1024, threads, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) grad[i] = y[i] > 0.0f ? grad[i] : 0.0f;
  });
}

}  // namespace dtrain::cpu
