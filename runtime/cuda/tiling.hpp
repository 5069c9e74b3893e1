// How a matrix [rows, channels] is cut into blocks of threads for sums over its rows: depends on the shape alone, and
// so do the bits. Plain data, on any thread and device.
#pragma once

#include <cstdint>

#include "runtime/cuda/grid.hpp"

namespace dtrain::cuda {

/// A block has `lanes` groups of channels side by side and `height` rows below one another; it goes down `chunk` rows.
/// Blocks are numbered tile by tile within a chunk of rows.
struct Tiling {
  static constexpr int threads = 256;
  int lanes, height;
  std::int64_t tiles, chunks, chunk;

  std::int64_t blocks() const { return tiles * chunks; }
};

/// `width` channels a thread; a thread gets up to `most` rows, fewer where that leaves less than `wanted` blocks.
inline Tiling tiling_of(std::int64_t rows, std::int64_t channels, int width, std::int64_t most, std::int64_t wanted) {
  Tiling t{};
  const std::int64_t groups = divide_up(channels, width);
  t.lanes = 1;
  while (t.lanes < static_cast<int>(warp_size) && t.lanes < groups) t.lanes *= 2;
  t.height = Tiling::threads / t.lanes;
  t.tiles = divide_up(groups, t.lanes);
  std::int64_t rows_a_thread = rows * t.tiles / (t.height * wanted);
  rows_a_thread = rows_a_thread < 1 ? 1 : rows_a_thread > most ? most : rows_a_thread;
  t.chunk = t.height * rows_a_thread;
  t.chunks = divide_up(rows, t.chunk);
  return t;
}

}  // namespace dtrain::cuda
