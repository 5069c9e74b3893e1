// Compiled with contraction, unlike the rest, and for the widest vectors: which ones is asked of the processor, so that
// a build for any machine is as quick as one for this machine.
#include "runtime/cpu/ops/tile_products.hpp"

#include <cstring>

namespace dtrain::cpu {

namespace {

/// Rows of a tile of sums: with two vectors of columns they fill 12 registers, of which the multipliers need 8 at
/// least.
constexpr int tile_rows = 6;

struct Strides {
  std::int64_t left, right, panel, out;
};

template <int width>
using VectorOf [[gnu::vector_size(4 * width)]] = float;

/// A tile of rows x (vectors * width) sums over k terms.
template <int width, int rows, int vectors, bool by_rows>
[[gnu::always_inline]] inline void tile(std::int64_t k, const float* a, const float* b, float* c, const Strides& s,
                                        bool add) {
  using Vector = VectorOf<width>;
  const auto column = [&s](int v) { return v * width / panel_columns * s.panel + v * width % panel_columns; };
  Vector sums[rows][vectors];
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) sums[i][v] = Vector{};
  for (std::int64_t j = 0; j < k; ++j) {
    Vector right[vectors];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) std::memcpy(&right[v], b + column(v), sizeof right[v]);
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      const float left = by_rows ? a[i * s.left] : a[i];
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) sums[i][v] += left * right[v];
    }
    a += by_rows ? 1 : s.left;
    b += s.right;
  }
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      float* const to = c + i * s.out + v * width;
      Vector before{};
      if (add) std::memcpy(&before, to, sizeof before);
      const Vector after = before + sums[i][v];
      std::memcpy(to, &after, sizeof after);
    }
  }
}

/// All rows of so many columns.
template <int width, int vectors, bool by_rows>
[[gnu::always_inline]] inline void columns(std::int64_t m, std::int64_t k, const float* a, const float* b, float* c,
                                           const Strides& s, bool add) {
  const std::int64_t step = by_rows ? s.left : 1;
  for (; m >= tile_rows; m -= tile_rows, a += tile_rows * step, c += tile_rows * s.out)
    tile<width, tile_rows, vectors, by_rows>(k, a, b, c, s, add);
  if (m == 5) tile<width, 5, vectors, by_rows>(k, a, b, c, s, add);
  if (m == 4) tile<width, 4, vectors, by_rows>(k, a, b, c, s, add);
  if (m == 3) tile<width, 3, vectors, by_rows>(k, a, b, c, s, add);
  if (m == 2) tile<width, 2, vectors, by_rows>(k, a, b, c, s, add);
  if (m == 1) tile<width, 1, vectors, by_rows>(k, a, b, c, s, add);
}

template <int width, bool by_rows>
[[gnu::always_inline]] inline void product(std::int64_t m, std::int64_t n, std::int64_t k, const LeftFactor& a,
                                           const RightFactor& b, const ProductPlace& c) {
  const Strides s{by_rows ? a.row : a.column, b.row, b.panel, c.row};
  std::int64_t j = 0;
  for (; j + 2 * width <= n; j += 2 * width)
    columns<width, 2, by_rows>(m, k, a.at, b.at + j / panel_columns * b.panel, c.at + j, s, c.add);
  if (j < n) columns<width, 1, by_rows>(m, k, a.at, b.at + j / panel_columns * b.panel, c.at + j, s, c.add);
}
template <int width>
[[gnu::always_inline]] inline void product(std::int64_t m, std::int64_t n, std::int64_t k, const LeftFactor& a,
                                           const RightFactor& b, const ProductPlace& c) {
  if (a.column == 1) return product<width, true>(m, n, k, a, b, c);
  product<width, false>(m, n, k, a, b, c);
}

using Function = void (*)(std::int64_t m, std::int64_t n, std::int64_t k, const LeftFactor&, const RightFactor&,
                          const ProductPlace&);

void product_of_8(std::int64_t m, std::int64_t n, std::int64_t k, const LeftFactor& a, const RightFactor& b,
                  const ProductPlace& c) {
  product<8>(m, n, k, a, b, c);
}

#if defined(__x86_64__)
[[gnu::target("avx2,fma")]] void product_avx2(std::int64_t m, std::int64_t n, std::int64_t k, const LeftFactor& a,
                                              const RightFactor& b, const ProductPlace& c) {
  product<8>(m, n, k, a, b, c);
}
[[gnu::target("avx512f")]] void product_avx512(std::int64_t m, std::int64_t n, std::int64_t k, const LeftFactor& a,
                                               const RightFactor& b, const ProductPlace& c) {
  product<16>(m, n, k, a, b, c);
}
Function choose() {
  if (__builtin_cpu_supports("avx512f")) return product_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return product_avx2;
  return product_of_8;
}
#else
Function choose() {
  return product_of_8;
}
#endif

}  // namespace

void tile_product(std::int64_t m, std::int64_t n, std::int64_t k, const LeftFactor& a, const RightFactor& b,
                  const ProductPlace& c) {
  static const Function function = choose();
  function(m, n, k, a, b, c);
}

}  // namespace dtrain::cpu
