// The closed set of operations: a new op is a line of this list, files of its own beside it, and a line in the registry
// of each device. Specs are plain data; see shape.hpp for what inference says of one and kernel.hpp for what devices
// make.
#pragma once

#include <span>
#include <string_view>
#include <variant>

#include "runtime/ops/activate.hpp"
#include "runtime/ops/add.hpp"
#include "runtime/ops/attention.hpp"
#include "runtime/ops/average_pool.hpp"
#include "runtime/ops/batch_moments.hpp"
#include "runtime/ops/batch_norm.hpp"
#include "runtime/ops/batch_normalize.hpp"
#include "runtime/ops/cached_attention.hpp"
#include "runtime/ops/cast.hpp"
#include "runtime/ops/class_token.hpp"
#include "runtime/ops/concat.hpp"
#include "runtime/ops/conv.hpp"
#include "runtime/ops/conv_transpose.hpp"
#include "runtime/ops/dense.hpp"
#include "runtime/ops/dropout.hpp"
#include "runtime/ops/embedding.hpp"
#include "runtime/ops/flatten.hpp"
#include "runtime/ops/gated.hpp"
#include "runtime/ops/global_average_pool.hpp"
#include "runtime/ops/kernel.hpp"
#include "runtime/ops/layer_norm.hpp"
#include "runtime/ops/linear_cross_entropy.hpp"
#include "runtime/ops/max_pool.hpp"
#include "runtime/ops/mean_squared_error.hpp"
#include "runtime/ops/multiply.hpp"
#include "runtime/ops/positions.hpp"
#include "runtime/ops/rms_norm.hpp"
#include "runtime/ops/sequence_pool.hpp"
#include "runtime/ops/soft_cap.hpp"
#include "runtime/ops/softmax_cross_entropy.hpp"
#include "runtime/ops/sum_over_ranks.hpp"
#include "runtime/ops/upsample.hpp"

namespace dtrain {

// Float inputs are f32, bf16 or, on cuda, f16, and the output has the dtype of the input; parameters and their
// gradients are f32.
using OpSpec =
    std::variant<Conv, ConvTranspose, Upsample, MaxPool, AveragePool, GlobalAveragePool, Dense, Flatten, BatchNorm,
                 BatchMoments, SumOverRanks, BatchNormalize, LayerNorm, RmsNorm, Embedding, Positions, ClassToken,
                 SequencePool, Attention, CachedAttention, Gated, Activate, SoftCap, Add, Multiply, Concat, Dropout,
                 Cast, SoftmaxCrossEntropy, LinearCrossEntropy, MeanSquaredError>;

/// "conv2d", "dense", ... as users write it.
inline std::string_view name_of(const OpSpec& op) {
  return std::visit([](const auto& o) { return o.name(); }, op);
}
/// Pure. Throws ShapeError in the user's words; the graph adds the layer's name.
inline OpShape infer(const OpSpec& op, std::span<const TensorDesc> in) {
  return std::visit([&](const auto& o) { return o.infer(in); }, op);
}

}  // namespace dtrain
