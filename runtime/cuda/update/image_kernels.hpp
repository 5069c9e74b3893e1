// The kernel that loads images, as a function; see kernels.hpp and image_load.hpp.
// It enqueues its work and returns; all pointers are device memory.
#pragma once

#include "runtime/cuda/kernels.hpp"
#include "runtime/input/image_load.hpp"

namespace dtrain::cuda {

void load_images(const Launch&, Element out, const ImageFormat&, const ImageBatch&);

}  // namespace dtrain::cuda
