// Starts the kernels beside linear layers and convolutions.
#include "runtime/cuda/ops/cast.hpp"
#include "runtime/cuda/ops/layer_kernels.hpp"

namespace dtrain::cuda {

namespace {

template <class From, class To>
void swap(const Launch& where, const Swap& shape, const void* from, Slot to) {
  using Body = SwapBody<From, To>;
  const std::int64_t row_tiles = divide_up(shape.rows, Body::tile), column_tiles = divide_up(shape.columns, Body::tile);
  launch(where, shape.outer * row_tiles * column_tiles, Body{shape, row_tiles, column_tiles, typed(from), to});
}

}  // namespace

void swap_inner(const Launch& where, Element from_type, Element to_type, const Swap& shape, const void* from, Slot to) {
  if (shape.rows == 1 || shape.columns == 1)
    return cast(where, from_type, to_type, from, to, shape.outer * shape.rows * shape.columns);
  if (from_type == Element::f32) {
    with_element(to_type, [&](auto tag) { swap<float, decltype(tag)>(where, shape, from, to); });
  } else {
    with_element(from_type, [&](auto tag) { swap<decltype(tag), float>(where, shape, from, to); });
  }
}

std::size_t column_sums_bytes(std::int64_t rows, std::int64_t columns) {
  return static_cast<std::size_t>(column_chunks(rows, columns).chunks * columns) * sizeof(float);
}

void column_sums(const Launch& where, Element element, std::int64_t rows, std::int64_t columns, const void* x, Slot to,
                 void* workspace) {
  const ColumnChunks shape = column_chunks(rows, columns);
  auto* partial = static_cast<float*>(workspace);
  with_element(element, [&](auto tag) {
    using Body = ColumnSumsBody<decltype(tag)>;
    const std::int64_t column_blocks = divide_up(columns, Body::width);
    launch(where, shape.chunks * column_blocks, Body{shape, column_blocks, typed(x), partial});
  });
  for_count(where, columns, ColumnTotalsBody{shape, partial, to});
}

void bias_activate(const Launch& where, Element element, Activation kind, std::int64_t rows, std::int64_t columns,
                   const float* bias, void* y) {
  for_elements<BiasActivateBody>(where, element, rows * columns, aligned(y) && columns % width_of_element(element) == 0,
                                 kind, columns, bias, y);
}

}  // namespace dtrain::cuda
