// Starts the kernels of upsampling.
#include "runtime/cuda/ops/upsample.hpp"

namespace dtrain::cuda {

void upsample(const Launch& where, Element element, const UpsampleGrid& grid, const void* x, void* y) {
  for_channels<UpsampleBody>(where, element, grid.n * grid.pixels() * grid.d.factor * grid.h.factor * grid.w.factor,
                             grid.channels, aligned(x, y), grid, x, y);
}
void upsample_gradient(const Launch& where, Element element, const UpsampleGrid& grid, const void* gy, Slot gx) {
  for_channels<UpsampleGradientBody>(where, element, grid.n * grid.pixels(), grid.channels, aligned(gy, gx.to), grid,
                                     gy, gx);
}

}  // namespace dtrain::cuda
