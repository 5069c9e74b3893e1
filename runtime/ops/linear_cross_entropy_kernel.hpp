// The kernel of linear_cross_entropy on any device: that device's kernels of a dense layer, a soft cap (if there is
// one) and a cross-entropy, run on one chunk of positions after the other. It owns both, and runs them on the stream
// that it is given.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "runtime/ops/op.hpp"

namespace dtrain {

class LinearCrossEntropyKernel final : public Kernel {
 public:
  /// As Kernels::prepare, for the ops that it is made of.
  using Prepare = std::function<std::unique_ptr<Kernel>(const OpSpec&, std::span<const TensorDesc>, const OpUse&)>;
  LinearCrossEntropyKernel(const LinearCrossEntropy&, std::span<const TensorDesc> in, const OpUse&, const Prepare&);

  Needs needs() const override { return needs_; }
  void pack(std::span<const Tensor> master, Tensor packed, Stream&) override;
  std::span<const PackedPart> packed_parts() const override;
  /// The sums alone: of evaluation.
  void forward(const OpArgs&, Stream&) override;
  /// The sums too: see OpShape::loss_in_backward.
  void backward(const OpArgs&, const OpGrads&, Stream&) override;

 private:
  /// Kernels for so many rows; what is left over behind equal chunks has its own.
  struct Size {
    std::int64_t rows;
    std::unique_ptr<Kernel> dense, cap, loss;  // cap: null without one
    std::size_t packed_at, packed;
  };
  struct Chunk;

  void add_size(std::int64_t rows, std::span<const TensorDesc> in, const OpUse&, const Prepare&);
  template <class F>
  void each_chunk(const OpArgs&, const F& f) const;

  LinearCrossEntropy op_;
  std::int64_t rows_;
  std::vector<Size> sizes_;
  // In the workspace, behind the logits; their gradient lies over them, but for a cap, which reads them behind it.
  std::size_t gradient_at_ = 0, saved_at_ = 0, scratch_at_ = 0;
  Needs needs_;
};

}  // namespace dtrain
