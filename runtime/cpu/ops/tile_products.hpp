// Products of matrices that lie in the caches: the blocks of attention. A library's product copies both factors at each
// call, which costs a fifth of the time where a sum has 64 terms; these read them as they lie.
// Free functions that own nothing and run on the calling thread. A sum is made in the order of its terms, so its bits
// depend on nothing but whether the processor has fused multiply-add.
#pragma once

#include <cstdint>

namespace dtrain::cpu {

/// Columns of a right factor lie in panels of so many, one row of a panel after another.
inline constexpr std::int64_t panel_columns = 16;

/// [m, k]: element (i, j) is at[i * row + j * column]; one of the two is 1.
struct LeftFactor {
  const float* at;
  std::int64_t row, column;
};
/// [k, n]: element (i, j) is at[i * row + j / 16 * panel + j % 16]. Of a plain matrix `panel` is 16.
struct RightFactor {
  const float* at;
  std::int64_t row, panel;
};
/// [m, n], row by row; overwritten or added to.
struct ProductPlace {
  float* at;
  std::int64_t row;
  bool add;
};

/// `n` is a multiple of panel_columns.
void tile_product(std::int64_t m, std::int64_t n, std::int64_t k, const LeftFactor&, const RightFactor&,
                  const ProductPlace&);

}  // namespace dtrain::cpu
