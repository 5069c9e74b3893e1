// What a loss reads of a row, a position of a sample, beside its values, and what the row gives to the sums: shared by
// every device. Plain values that own nothing; a kernel makes them of its arguments in each call.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/random/rng.hpp"
#include "runtime/tensor/dtype.hpp"

namespace dtrain {

/// A weight for all positions of a sample, or one for each.
struct RowWeights {
  const float* weights;
  std::int64_t rows_each;  // that share a weight
  DTRAIN_HOST_DEVICE float of(std::int64_t row) const { return weights[rows_each == 1 ? row : row / rows_each]; }
};

struct RowLabels {
  const void* labels;
  DType type;  // i32, u16 or u8
  bool ignores = false;
  std::int64_t ignored = 0;
  DTRAIN_HOST_DEVICE std::int64_t of(std::int64_t row) const {
    if (type == DType::u8) return static_cast<const std::uint8_t*>(labels)[row];
    if (type == DType::u16) return static_cast<const std::uint16_t*>(labels)[row];
    return static_cast<const std::int32_t*>(labels)[row];
  }
  DTRAIN_HOST_DEVICE bool ignored_of(std::int64_t label) const { return ignores && label == ignored; }
};

/// By LossSum.
struct RowLoss {
  double loss = 0, weight = 0, correct = 0, top5 = 0, positions = 0;
  DTRAIN_HOST_DEVICE void add(const RowLoss& other) {
    loss += other.loss;
    weight += other.weight;
    correct += other.correct;
    top5 += other.top5;
    positions += other.positions;
  }
};

/// Sums of rows are added in parts, each in the order of its rows, then the parts in theirs; at most so many, so that a
/// row is a part where rows are as few as samples.
inline constexpr std::int64_t most_loss_parts = 65536;
inline std::int64_t loss_parts(std::int64_t rows) {
  return rows < most_loss_parts ? rows : most_loss_parts;
}
/// Workspace for them.
inline std::size_t loss_bytes(std::int64_t rows) {
  return static_cast<std::size_t>(loss_parts(rows)) * sizeof(RowLoss);
}

}  // namespace dtrain
