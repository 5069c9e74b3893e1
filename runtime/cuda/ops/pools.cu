// Starts the kernels of pooling, and of factors a channel.
#include "runtime/cuda/ops/column_bodies.hpp"
#include "runtime/cuda/ops/pool_bodies.hpp"

namespace dtrain::cuda {

namespace {

template <class F>
void for_count(const Launch& where, std::int64_t count, const F& f) {
  const std::int64_t blocks = divide_up(count, block_threads);
  launch(where, blocks < most_blocks ? blocks : most_blocks, ForCount<F>{count, f});
}

}  // namespace

void max_pool(const Launch& where, Element element, const WindowGrid& grid, const void* x, void* y, std::uint8_t* won) {
  with_width(element, grid.channels, aligned(x, y, won), [&](auto tag, auto w) {
    using T = decltype(tag);
    for_count(where, grid.n * grid.windows() * (grid.channels / w.value),
              MaxPoolBody<T, w.value>{grid, as<T>(x), static_cast<T*>(y), won});
  });
}

void max_pool_gradient(const Launch& where, Element element, const WindowGrid& grid, const std::uint8_t* won,
                       const void* gy, Slot gx) {
  with_width(element, grid.channels, aligned(won, gy, gx.to), [&](auto tag, auto w) {
    using T = decltype(tag);
    for_count(where, grid.n * grid.pixels() * (grid.channels / w.value),
              MaxPoolGradientBody<T, w.value>{grid, won, as<T>(gy), gx});
  });
}

void average_pool(const Launch& where, Element element, const WindowGrid& grid, bool count_padding, const void* x,
                  void* y) {
  with_width(element, grid.channels, aligned(x, y), [&](auto tag, auto w) {
    using T = decltype(tag);
    for_count(where, grid.n * grid.windows() * (grid.channels / w.value),
              AveragePoolBody<T, w.value>{grid, count_padding, as<T>(x), static_cast<T*>(y)});
  });
}

void average_pool_gradient(const Launch& where, Element element, const WindowGrid& grid, bool count_padding,
                           const void* gy, Slot gx) {
  with_width(element, grid.channels, aligned(gy, gx.to), [&](auto tag, auto w) {
    using T = decltype(tag);
    for_count(where, grid.n * grid.pixels() * (grid.channels / w.value),
              AveragePoolGradientBody<T, w.value>{grid, count_padding, as<T>(gy), gx});
  });
}

void global_average(const Launch& where, Element element, const Images& images, const void* x, void* y) {
  with_width(element, images.channels, aligned(x), [&](auto tag, auto w) {
    using T = decltype(tag);
    sum_samples(where, images, GlobalAverageTerms<T, w.value>{images, as<T>(x), static_cast<T*>(y)});
  });
}

void global_average_gradient(const Launch& where, Element element, const Images& images, const void* gy, Slot gx) {
  with_width(element, images.channels, aligned(gy, gx.to), [&](auto tag, auto w) {
    using T = decltype(tag);
    for_count(where, images.samples * images.pixels * (images.channels / w.value),
              GlobalAverageGradientBody<T, w.value>{images, as<T>(gy), gx});
  });
}

void scale_channels(const Launch& where, Element element, const Images& images, const void* a, const void* b, void* y) {
  with_width(element, images.channels, aligned(a, b, y), [&](auto tag, auto w) {
    using T = decltype(tag);
    for_count(where, images.samples * images.pixels * (images.channels / w.value),
              ScaleChannelsBody<T, w.value>{images, as<T>(a), as<T>(b), static_cast<T*>(y)});
  });
}

void scale_channels_gradient(const Launch& where, Element element, const Images& images, const void* a, const void* b,
                             const void* gy, Slot ga, Slot gb) {
  with_width(element, images.channels, aligned(a, b, gy, ga.to), [&](auto tag, auto w) {
    using T = decltype(tag);
    sum_samples(where, images, ScaleChannelsGradientTerms<T, w.value>{images, as<T>(a), as<T>(b), as<T>(gy), ga, gb});
  });
}

}  // namespace dtrain::cuda
