// The loss `linear_cross_entropy`: a dense layer and the cross-entropy of its logits as one op, in chunks of positions.
// A plain value; its kernel, of the dense and loss kernels of any device, is LinearCrossEntropyKernel.
#pragma once

#include "runtime/ops/dense.hpp"
#include "runtime/ops/soft_cap.hpp"
#include "runtime/ops/softmax_cross_entropy.hpp"

namespace dtrain {

/// in: values [N, positions..., features], labels and weights [N, positions...]. params: those of the dense layer. out:
/// sums, as of SoftmaxCrossEntropy. Logits exist for one chunk of positions at a time: in training they are formed
/// once, in backward, where they become their own gradient. So no [positions, units] is ever stored, which for language
/// models would be the largest tensor of all.
///
/// Rows of logits are as long as there are units, and no unit is added to make them even: on the CPU one float32
/// product with 50257 units took as long as one with 50304 and as one whose rows are 50304 apart (128 rows, 384
/// features, one thread: differences below those between repetitions).
struct LinearCrossEntropy {
  Dense dense;  // without activation
  SoftmaxCrossEntropy loss;
  std::int64_t chunk = 0;        // positions, of whole 64 bytes; 0: as many as are good
  std::optional<SoftCap> cap{};  // of the logits, between the two; their gradient then has a chunk of its own

  std::string_view name() const { return "linear_cross_entropy"; }
  OpShape infer(std::span<const TensorDesc> in) const;

  /// Positions of each chunk, the last but for what is left.
  std::int64_t chunk_rows(const TensorDesc& value) const;
};

}  // namespace dtrain
