// Random erasing: where a rectangle of an image is replaced, and by what.
// Pure functions that own nothing, for any thread; draws depend on the key and the position in the stream.
#pragma once

#include <cstdint>

#include "io/augment/kinds.hpp"
#include "runtime/random/rng.hpp"

namespace dtrain::io {

struct Rectangle {
  int left = 0, top = 0, width = 0, height = 0;  // width 0: nothing is erased
};
/// `sub`: the sub-key of this kind of augmentation.
Rectangle draw_rectangle(const RandomErasing&, RandomKey, std::uint64_t position, std::uint32_t sub, int height,
                         int width);
/// `image`: normalized, [height, width, channels].
void erase(const RandomErasing&, RandomKey, std::uint64_t position, std::uint32_t sub, const Rectangle&, int width,
           int channels, float* image);

}  // namespace dtrain::io
