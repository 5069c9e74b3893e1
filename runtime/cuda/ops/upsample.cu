// Starts the kernels of upsampling.
#include "runtime/cuda/ops/upsample.hpp"

namespace dtrain::cuda {

namespace {

std::int64_t pixels(const UpsampleGrid& grid) {
  return grid.d.extent * grid.h.extent * grid.w.extent;
}

template <class F>
void for_count(const Launch& where, std::int64_t count, const F& f) {
  const std::int64_t blocks = divide_up(count, block_threads);
  launch(where, blocks < most_blocks ? blocks : most_blocks, ForCount<F>{count, f});
}

}  // namespace

void upsample(const Launch& where, Element element, const UpsampleGrid& grid, const void* x, void* y) {
  with_width(element, grid.channels, aligned(x, y), [&](auto tag, auto w) {
    using T = decltype(tag);
    const std::int64_t count = grid.n * pixels(grid) * grid.d.factor * grid.h.factor * grid.w.factor;
    for_count(where, count * (grid.channels / w.value), UpsampleBody<T, w.value>{grid, as<T>(x), static_cast<T*>(y)});
  });
}

void upsample_gradient(const Launch& where, Element element, const UpsampleGrid& grid, const void* gy, Slot gx) {
  with_width(element, grid.channels, aligned(gy, gx.to), [&](auto tag, auto w) {
    using T = decltype(tag);
    for_count(where, grid.n * pixels(grid) * (grid.channels / w.value),
              UpsampleGradientBody<T, w.value>{grid, as<T>(gy), gx});
  });
}

}  // namespace dtrain::cuda
