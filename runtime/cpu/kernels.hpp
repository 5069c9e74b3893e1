// The kernels of the CPU device: ops from the factories of op_kernels.hpp, and the passes over flat buffers.
// Kernels own their descriptors and no tensors; they run inline on the calling thread, with `threads` OpenMP threads.
#pragma once

#include <memory>
#include <span>

#include "runtime/ops/kernels.hpp"
#include "runtime/optim/optimizer.hpp"

namespace dtrain::cpu {

class CpuKernels final : public Kernels {
 public:
  explicit CpuKernels(int threads) : threads_(threads) {}
  std::unique_ptr<Kernel> prepare(const OpSpec&, std::span<const TensorDesc> in, const OpUse&) override;
  void update(const UpdateRule&, const UpdateArgs&, Stream&) override;
  void update_states(const StateUpdateArgs&, Stream&) override;
  void average(float* average, const float* params, std::size_t n, double decay, const StepState&, Stream&) override;
  void sum_squares(const float* x, std::size_t n, double* partial, Stream&) override;
  void finish_gradients(const GradientArgs&, Stream&) override;
  void finish_step(const FinishArgs&, Stream&) override;
  void load_images(const ImageFormat&, const ImageBatch&, Stream&) override;
  void add(std::span<const float* const> parts, float* out, std::size_t begin, std::size_t end, Stream&) override;
  void cast(Tensor from, Tensor to, Stream&) override;

 private:
  int threads_;
};

/// In double, in an order that depends on `n` alone.
double sum_squares(const float* x, std::size_t n);

/// partial[i] = sum of the squares of block i of norm_block floats, in an order of its own that does not depend on
/// `threads`.
void sum_squares_blocks(const float* x, std::size_t n, double* partial, int threads);

}  // namespace dtrain::cpu
