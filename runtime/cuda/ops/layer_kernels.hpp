// What linear layers and convolutions want beside the libraries: swapped axes, sums of columns, bias and activation, as
// functions that enqueue their work and return, and their bodies. Structs of arguments; see grid.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/cuda/vector.hpp"
#include "runtime/ops/activation_math.hpp"

namespace dtrain::cuda {

/// [outer, rows, columns] -> [outer, columns, rows], from or to float: filters from (channel, pixel) order to (pixel,
/// channel) order, and gradients the way back.
struct Swap {
  std::int64_t outer, rows, columns;
};
void swap_inner(const Launch&, Element from_type, Element to_type, const Swap&, const void* from, Slot to);

/// Float sums of each column of [rows, columns], in an order that depends on the shape alone.
std::size_t column_sums_bytes(std::int64_t rows, std::int64_t columns);
void column_sums(const Launch&, Element, std::int64_t rows, std::int64_t columns, const void* x, Slot to,
                 void* workspace);

/// y = act(y + bias) of [rows, columns], in place; `bias` [columns] may be null.
void bias_activate(const Launch&, Element, Activation, std::int64_t rows, std::int64_t columns, const float* bias,
                   void* y);

/// A block moves a tile through shared memory, so that both sides are read and written along rows.
template <class From, class To>
struct SwapBody {
  static constexpr int threads = block_threads, tile = 32;
  struct Shared {
    float values[tile][tile + 1];
  };
  Swap shape;
  std::int64_t row_tiles, column_tiles;
  const From* from;
  Slot to;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    const Split image = split(t.block(), row_tiles * column_tiles), place = split(image.rest, column_tiles);
    const std::int64_t first_row = place.quotient * tile, first_column = place.rest * tile;
    const int x = static_cast<int>(t.index()) % tile, first = static_cast<int>(t.index()) / tile;
    for (int y = first; y < tile; y += threads / tile) {
      const std::int64_t row = first_row + y, column = first_column + x;
      if (row < shape.rows && column < shape.columns)
        shared.values[y][x] = to_float(from[(image.quotient * shape.rows + row) * shape.columns + column]);
    }
    t.sync();
    for (int y = first; y < tile; y += threads / tile) {
      const std::int64_t column = first_column + y, row = first_row + x;
      if (row < shape.rows && column < shape.columns)
        write_slot<1, To>(to, (image.quotient * shape.columns + column) * shape.rows + row, {shared.values[x][y]});
    }
  }
};

/// Rows are summed in chunks, whose sums ColumnTotalsBody adds.
struct ColumnChunks {
  std::int64_t rows, columns, chunk, chunks;
};
inline ColumnChunks column_chunks(std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t least_rows = 256, most_chunks = 512;
  const std::int64_t share = divide_up(rows, most_chunks);
  const std::int64_t chunk = share > least_rows ? share : least_rows;
  return {rows, columns, chunk, divide_up(rows, chunk)};
}

/// A block sums 32 columns of a chunk: each of 8 threads a column every eighth row, then the eight in order.
template <class T>
struct ColumnSumsBody {
  static constexpr int threads = block_threads, width = 32, lanes = threads / width;
  struct Shared {
    float sums[lanes][width];
  };
  ColumnChunks shape;
  std::int64_t column_blocks;
  const T* x;
  float* partial;  // [chunks, columns]

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    const Split place = split(t.block(), column_blocks);
    const int lane = static_cast<int>(t.index()) / width, at = static_cast<int>(t.index()) % width;
    const std::int64_t column = place.rest * width + at, begin = place.quotient * shape.chunk;
    const std::int64_t end = begin + shape.chunk < shape.rows ? begin + shape.chunk : shape.rows;
    float sum = 0;
    if (column < shape.columns) {
      for (std::int64_t row = begin + lane; row < end; row += lanes) sum += to_float(x[row * shape.columns + column]);
    }
    shared.sums[lane][at] = sum;
    t.sync();
    if (lane > 0 || column >= shape.columns) return;
    for (int other = 1; other < lanes; ++other) sum += shared.sums[other][at];
    partial[place.quotient * shape.columns + column] = sum;
  }
};

struct ColumnTotalsBody {
  ColumnChunks shape;
  const float* partial;
  Slot to;
  DTRAIN_HOST_DEVICE void run(std::int64_t column) const {
    double sum = 0;
    for (std::int64_t c = 0; c < shape.chunks; ++c) sum += static_cast<double>(partial[c * shape.columns + column]);
    write_slot<1, float>(to, column, {static_cast<float>(sum)});
  }
};

template <class T>
struct BiasActivateBody {
  using Element = T;
  Activation kind;
  std::int64_t columns;
  const float* bias;
  T* y;
  template <int width>
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    Floats<width> v = load_floats<width>(y + i);
    if (bias) {
      const float* of_column = bias + split(i, columns).rest;
      for (int j = 0; j < width; ++j) v.v[j] += of_column[j];
    }
    with_epilogue(kind, [&](auto constant) {
      for (int j = 0; j < width; ++j) v.v[j] = dtrain::activate<constant.value>(v.v[j]);
    });
    store_floats<width>(y + i, v);
  }
};

}  // namespace dtrain::cuda
