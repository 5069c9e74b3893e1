// Starts the kernels of pooling: one file, as each costs seconds of compilation.
#include "runtime/cuda/ops/average_pool.hpp"
#include "runtime/cuda/ops/global_average_pool.hpp"
#include "runtime/cuda/ops/max_pool.hpp"

namespace dtrain::cuda {

void max_pool(const Launch& where, Element element, const WindowGrid& grid, const void* x, void* y, std::uint8_t* won) {
  for_channels<MaxPoolBody>(where, element, grid.n * grid.windows(), grid.channels, aligned(x, y, won), grid, x, y,
                            won);
}
void max_pool_gradient(const Launch& where, Element element, const WindowGrid& grid, const std::uint8_t* won,
                       const void* gy, Slot gx) {
  for_channels<MaxPoolGradientBody>(where, element, grid.n * grid.pixels(), grid.channels, aligned(won, gy, gx.to),
                                    grid, won, gy, gx);
}

void average_pool(const Launch& where, Element element, const WindowGrid& grid, bool count_padding, const void* x,
                  void* y) {
  for_channels<AveragePoolBody>(where, element, grid.n * grid.windows(), grid.channels, aligned(x, y), grid,
                                count_padding, x, y);
}
void average_pool_gradient(const Launch& where, Element element, const WindowGrid& grid, bool count_padding,
                           const void* gy, Slot gx) {
  for_channels<AveragePoolGradientBody>(where, element, grid.n * grid.pixels(), grid.channels, aligned(gy, gx.to), grid,
                                        count_padding, gy, gx);
}

void global_average(const Launch& where, Element element, const Images& images, const void* x, void* y) {
  sum_samples<GlobalAverageTerms>(where, element, images, aligned(x), x, y);
}
void global_average_gradient(const Launch& where, Element element, const Images& images, const void* gy, Slot gx) {
  for_channels<GlobalAverageGradientBody>(where, element, images.samples * images.pixels, images.channels,
                                          aligned(gy, gx.to), images, gy, gx);
}

}  // namespace dtrain::cuda
