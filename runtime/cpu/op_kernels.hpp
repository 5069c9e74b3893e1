// One factory an op of the CPU device; what each kernel does lies in the source beside it.
// A kernel is owned by its caller and runs on the calling thread with `threads` OpenMP threads.
#pragma once

#include <memory>
#include <span>

#include "runtime/op.hpp"

namespace dtrain::cpu {

std::unique_ptr<Kernel> make_linear(const Linear&, std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_conv2d(const Conv2d&, std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_max_pool2d(const MaxPool2d&, std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_relu(std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_dropout(const Dropout&, std::span<const TensorDesc> in, int threads);
std::unique_ptr<Kernel> make_flatten();
std::unique_ptr<Kernel> make_softmax_cross_entropy(std::span<const TensorDesc> in);
std::unique_ptr<Kernel> make_mean_squared_error(std::span<const TensorDesc> in);

/// grad[i] = 0 where the activation's output y[i] is not positive.
void mask_relu_gradient(const float* y, float* grad, std::int64_t n, int threads);

}  // namespace dtrain::cpu
