// Which positions an attention sees from another one, and which draws decide what its dropout keeps: shared by every
// device. Plain values that own nothing.
#pragma once

#include <cstdint>

#include "runtime/random/rng.hpp"

namespace dtrain {

struct VisibleRange {
  std::int32_t begin = 0, end = 0;
};

/// `first`, of a sample, holds for each position the first one of its document (or, causal, the first that it may see):
/// it does not decrease, and first[i] <= i. Positions i and j see one another where first[i] <= j and first[j] <= i;
/// padding is a document of its own. A value that breaks the rule gives an empty range, of which attention makes NaN,
/// so that no run goes on with it.
struct VisibleRule {
  std::int64_t positions;
  bool causal;
  std::int64_t window;  // 0: none

  DTRAIN_HOST_DEVICE VisibleRange of(const std::int32_t* first, std::int64_t i) const {
    std::int64_t begin = 0, end = causal ? i + 1 : positions;
    if (window > 0 && i - window + 1 > begin) begin = i - window + 1;
    if (window > 0 && i + window < end) end = i + window;
    if (first != nullptr) {
      const std::int64_t own = first[i];
      if (own < 0 || own > i || (i > 0 && first[i - 1] > own))
        return {static_cast<std::int32_t>(i), static_cast<std::int32_t>(i)};
      if (own > begin) begin = own;
      std::int64_t seen = i + 1;
      while (seen < end && first[seen] <= i) ++seen;
      end = seen;
    }
    return {static_cast<std::int32_t>(begin), static_cast<std::int32_t>(end)};
  }
};

/// Positions of a sample's first document: all where there are no documents, none where the rule is broken at once.
DTRAIN_HOST_DEVICE inline std::int64_t first_document(const std::int32_t* first, std::int64_t positions) {
  if (first == nullptr) return positions;
  std::int64_t count = 0;
  while (count < positions && first[count] == 0) ++count;
  return count;
}

/// The draws of a weight: word (key % 4) of draw4(key of the seed, stream position, sub(id, head), block(query, key)).
struct WeightDraws {
  std::int64_t positions;
  DTRAIN_HOST_DEVICE static std::uint32_t sub(std::uint32_t id, std::int64_t head) {
    return id + (static_cast<std::uint32_t>(head) << 16);
  }
  DTRAIN_HOST_DEVICE std::uint32_t block(std::int64_t query, std::int64_t key) const {
    return static_cast<std::uint32_t>(query * ((positions + 3) / 4) + key / 4);
  }
};

}  // namespace dtrain
